package session

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
)

const (
	tokenBytes  = 32
	tokenLength = (tokenBytes*8 + 5) / 6 // of base64
)

// Get returns the live session of a token, which other callers share: do not change it.
// models.ErrNotFound means that there is none; models.ErrUnavailable, that neither a valid copy
// nor the database answers now. It is no activity: see Touch.
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
	if !isToken(token) {
		c.reads.none.Inc()
		return nil, fmt.Errorf("get session: %w", models.ErrNotFound)
	}
	ctx = redis.EnsureBudget(ctx) // up to two calls
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

// Warm reports whether a token's session is in memory, so that Get will answer without Redis
// and database. It does no I/O itself.
func (c *Cache) Warm(token string) bool {
	key, ok := keyOfToken(token)
	if !ok {
		return false
	}
	_, ok = c.fromMemory(key, time.Now())
	return ok
}

// Known reports whether this instance has found the session of a token before, so that the
// token is no guess; it may have ended since. It does no I/O.
func (c *Cache) Known(token string) bool {
	key, ok := keyOfToken(token)
	return ok && c.memory.get(key) != nil
}

// List returns the live sessions of a user, the one that began last first, as the database has
// them. models.ErrUnavailable without the database.
func (c *Cache) List(ctx context.Context, userID string) ([]models.Session, error) {
	live, err := c.database.SessionsOf(ctx, userID, time.Now())
	if err != nil {
		return nil, fmt.Errorf("list sessions of user %s: %w", userID, err)
	}
	return live, nil
}

// Count returns how many live sessions a user has. Its errors are those of List.
func (c *Cache) Count(ctx context.Context, userID string) (int, error) {
	live, err := c.List(ctx, userID)
	return len(live), err
}

func (c *Cache) fromMemory(key memoryKey, now time.Time) (*models.Session, bool) {
	held := c.memory.get(key)
	if held == nil {
		return nil, false
	}
	return c.accept(held, now)
}

// accept decides whether a copy may be used: it is fresh and live, and the log follower
// validates it.
func (c *Cache) accept(held *memoryCopy, now time.Time) (*models.Session, bool) {
	if !c.fresh(held, now) || !c.follower.validates(held, now) {
		return nil, false
	}
	s := held.session.Load()
	return s, s.Live(now)
}

// rowRead is the answer of one query that several callers may share.
type rowRead struct {
	session models.Session
	sentAt  time.Time
	inRedis bool // Redis has this copy, or a newer one
}

// fromRow reads the database and renews the copies.
func (c *Cache) fromRow(ctx context.Context, hash string) (models.Session, error) {
	read, err := c.shareRow(ctx, hash)
	return read.session, err
}

// shareRow makes one query for all callers that ask for the same session at the same time.
func (c *Cache) shareRow(ctx context.Context, hash string) (rowRead, error) {
	asked := time.Now()
	ctx, done := c.opt.Budget(ctx) // the query is shared, but each caller waits for itself
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
				continue // an earlier query: the session may have ended since
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
		asOf = used.Since // the row may only look idle
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

// keyOfToken hashes what has the length of a token. If a session is found by the key, it was a
// token; otherwise isToken has to look at it.
func keyOfToken(token string) (memoryKey, bool) {
	if len(token) != tokenLength {
		return memoryKey{}, false
	}
	var text [tokenLength]byte // on the stack, where a conversion would not be
	copy(text[:], token)
	return sha256.Sum256(text[:]), true
}

// isToken reports whether a string can be a token of newToken at all.
func isToken(token string) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	// The decoder skips line breaks, hence the length of both.
	return err == nil && len(raw) == tokenBytes && len(token) == tokenLength
}

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
