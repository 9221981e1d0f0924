package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"gatehouse/models"
)

// Get returns the live session of a token, which others share: do not change it.
// models.ErrNotFound means that there is none; models.ErrUnavailable, that nobody can
// say now. It is no activity: see Touch.
func (c *Cache) Get(ctx context.Context, token string) (*models.Session, error) {
	key, ok := keyOfToken(token)
	if !ok {
		c.reads.none.Inc()
		return nil, fmt.Errorf("get session: %w", models.ErrNotFound)
	}
	if s, ok := c.fromMemory(key, time.Now()); ok {
		c.reads.memory.Inc()
		return s, nil
	}
	if !isSessionToken(token) {
		c.reads.none.Inc()
		return nil, fmt.Errorf("get session: %w", models.ErrNotFound)
	}
	hash := hex.EncodeToString(key[:])
	if s, ok := c.fromRedis(ctx, key, hash); ok {
		c.reads.redis.Inc()
		return s, nil
	}
	s, err := c.fromRow(ctx, hash)
	switch {
	case err == nil:
		c.reads.database.Inc()
		return &s, nil
	case errors.Is(err, models.ErrNotFound):
		c.reads.none.Inc()
		c.forget(hash)
	default:
		c.reads.unavailable.Inc()
	}
	return nil, fmt.Errorf("get session: %w", err)
}

// Warm reports whether a token's session is in memory, so that Get will answer
// without Redis and database. It does no I/O itself.
func (c *Cache) Warm(token string) bool {
	key, ok := keyOfToken(token)
	if !ok {
		return false
	}
	_, ok = c.fromMemory(key, time.Now())
	return ok
}

// Known reports whether this instance has found the session of a token before, so
// that it is no guess; it may have ended since. It does no I/O.
func (c *Cache) Known(token string) bool {
	key, ok := keyOfToken(token)
	return ok && c.memory.get(key) != nil
}

const tokenLength = (tokenBytes*8 + 5) / 6 // of base64

// keyOfToken hashes what has the length of a token. What is found by the key is
// one; anything else is to be looked at first.
func keyOfToken(token string) (sessionKey, bool) {
	if len(token) != tokenLength {
		return sessionKey{}, false
	}
	var text [tokenLength]byte // on the stack, where a conversion would not be
	copy(text[:], token)
	return sha256.Sum256(text[:]), true
}

func (c *Cache) fromMemory(key sessionKey, now time.Time) (*models.Session, bool) {
	held := c.memory.get(key)
	if held == nil {
		return nil, false
	}
	return c.accept(held, now)
}

// accept decides whether a copy may be used: it is fresh and live, and the revocation
// log vouches for it.
func (c *Cache) accept(held *memoryCopy, now time.Time) (*models.Session, bool) {
	if !c.fresh(held, now) || !c.follower.validates(held, now) {
		return nil, false
	}
	s := held.session.Load()
	return s, s.Live(now)
}

func (c *Cache) fresh(held *memoryCopy, now time.Time) bool {
	if held.stale.Load() {
		return false
	}
	return now.Sub(held.readAt) < memoryFor || (now.Before(held.trackedUntil) && c.tracking.Covers(held.generation, now))
}

// rowRead is the answer of one query that several callers may share.
type rowRead struct {
	session models.Session
	sentAt  time.Time
	inRedis bool // Redis has this copy, or a newer one
}

// fromRow reads the database, one query for all who ask for the same session,
// and renews the copies.
func (c *Cache) fromRow(ctx context.Context, hash string) (models.Session, error) {
	read, err := c.shareRow(ctx, hash)
	return read.session, err
}

func (c *Cache) shareRow(ctx context.Context, hash string) (rowRead, error) {
	asked := time.Now()
	ctx, done := c.opt.Budget(ctx) // the query is shared, the waiting is the caller's own
	defer done()
	for {
		result := c.flight.DoChan(hash, func() (any, error) {
			return c.readRow(context.WithoutCancel(ctx), hash)
		})
		select {
		case <-ctx.Done():
			return rowRead{}, fmt.Errorf("%w: %w", models.ErrUnavailable, context.Cause(ctx))
		case got := <-result:
			read := got.Val.(rowRead)
			if read.sentAt.Before(asked) && !errors.Is(got.Err, models.ErrUnavailable) {
				continue // somebody's earlier query: the session may have ended since
			}
			return read, got.Err
		}
	}
}

func (c *Cache) readRow(ctx context.Context, hash string) (rowRead, error) {
	offset, known := c.follower.offset()
	read := rowRead{sentAt: time.Now()}
	asOf := read.sentAt
	used, unwritten := c.activity.of(hash)
	if unwritten {
		asOf = used.LastSeen // the row may only look idle
	}
	s, err := c.database.Session(ctx, hash, asOf)
	switch {
	case errors.Is(err, models.ErrNotFound):
		c.forget(hash)
		return read, err
	case errors.Is(err, models.ErrUnavailable):
		return read, err
	case err != nil:
		return read, fmt.Errorf("%w: %w", models.ErrUnavailable, err)
	}
	if unwritten && used.IdleAt.After(s.IdleAt) {
		s.LastSeen, s.IdleAt = used.LastSeen, used.IdleAt
	}
	if !s.Live(time.Now()) {
		return read, models.ErrNotFound
	}
	read.session = s
	if key, ok := keyOfHash(hash); known && ok {
		read.inRedis = c.remember(ctx, key, s, offset, read.sentAt)
	}
	return read, nil
}
