package session

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"gatehouse/models"
	"gatehouse/services/redis"
)

const maxUserAgent = 400 // bytes

// Create begins a session with the User, Roles, Epoch, Data, UserAgent and IP of s, and returns
// its token, which is kept nowhere. User.ID "" is an anonymous session. models.ErrStale if the
// user's epoch is no longer Epoch, or the user is disabled: the password checked may have
// changed since. The oldest sessions of the user beyond MaxPerUser end.
func (c *Cache) Create(ctx context.Context, s models.Session) (token string, _ models.Session, err error) {
	token, s.Hash = newToken()
	used := c.activity.used(s.Hash, time.Now())
	s.ID, s.Version = rand.Text(), 0
	s.CreatedAt, s.LastSeen, s.IdleAt = used.LastSeen, used.LastSeen, used.IdleAt
	s.ExpiresAt = s.CreatedAt.Add(c.opt.AbsoluteTimeout)
	s.UserAgent = shorten(s.UserAgent, maxUserAgent)
	ended, err := c.database.InsertSession(ctx, s, c.opt.MaxPerUser)
	if err != nil {
		return "", models.Session{}, fmt.Errorf("begin session: %w", err)
	}
	if ended > 0 {
		c.Sync(ctx)
	}
	// Read back: what later callers find is what was stored.
	if stored, err := c.fromRow(ctx, s.Hash); err == nil {
		s = stored
	}
	return token, s, nil
}

// Refresh starts the idle time anew, and writes that at once. models.ErrNotFound if the session
// has ended.
func (c *Cache) Refresh(ctx context.Context, s models.Session) (models.Session, error) {
	fresh, err := c.refresh(ctx, s.Hash)
	if err != nil {
		return models.Session{}, fmt.Errorf("refresh session %s: %w", s.ID, err)
	}
	return fresh.session, nil
}

func (c *Cache) refresh(ctx context.Context, hash string) (rowRead, error) {
	used := c.activity.used(hash, time.Now())
	if err := c.flushOne(ctx, hash); err != nil {
		return rowRead{}, err
	}
	written, err := c.database.TouchSessions(ctx, []models.Activity{used})
	if err != nil {
		return rowRead{}, err
	}
	if len(written) == 0 {
		return rowRead{}, models.ErrNotFound
	}
	return c.renew(ctx, hash)
}

// SaveData stores data in a session if it still has s.Version, and returns the session as it is
// then. If another request stored data since s was read, it returns models.ErrStale with the
// session as it is now. models.ErrNotFound if the session has ended: it is not brought back.
//
// Other instances see the data at once while Redis serves, else at most 2 s later; if Redis
// lost it by failing over or restarting, at most 10 min later.
func (c *Cache) SaveData(ctx context.Context, s models.Session, data []byte) (models.Session, error) {
	saved, err := c.saveData(ctx, s, data)
	if err != nil {
		err = fmt.Errorf("save session %s: %w", s.ID, err)
	}
	return saved, err
}

func (c *Cache) saveData(ctx context.Context, s models.Session, data []byte) (models.Session, error) {
	if err := c.flushOne(ctx, s.Hash); err != nil {
		return models.Session{}, err
	}
	version, err := c.database.SaveSessionData(ctx, s.Hash, s.Version, data)
	if errors.Is(err, models.ErrStale) {
		now, readErr := c.renew(ctx, s.Hash)
		if readErr != nil {
			err = readErr
		}
		return now.session, err
	}
	if err != nil {
		return models.Session{}, err
	}
	now, err := c.renew(ctx, s.Hash)
	if noteErr := c.noteUnlessInRedis(ctx, s.Hash, now); noteErr != nil {
		return models.Session{}, noteErr
	}
	if errors.Is(err, models.ErrUnavailable) { // saved, but the database went away since
		s.Data, s.Version = data, version
		return s, nil
	}
	return now.session, err
}

// renew replaces the copies of a session by its row.
func (c *Cache) renew(ctx context.Context, hash string) (rowRead, error) {
	c.forget(hash)
	return c.shareRow(ctx, hash)
}

// noteUnlessInRedis writes to the log that a session has changed, if Redis does not have the
// new copy: older copies, those in Redis too, are then not valid any more. Without Redis no
// copy is used for longer than 2 s anyway.
func (c *Cache) noteUnlessInRedis(ctx context.Context, hash string, now rowRead) error {
	if c.redis.Disabled() || (now.inRedis && !c.redis.Embedded()) {
		return nil
	}
	// The change is made: a caller that leaves does not unmake it.
	noteCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), syncTimeout)
	defer cancel()
	if err := c.database.NoteChange(noteCtx, hash); err != nil {
		return err
	}
	c.Sync(ctx)
	return nil
}

// Rotate gives session s a new token, as after a change of the password: it keeps its ID, data
// and end, and all other sessions of its user end. write stores next, in one transaction with
// an entry for the user in the log. It replaces the session with next's ID and makes the user's
// epoch next.Epoch, unless that session has ended or the epoch is not the given one any more.
// Its errors are returned; models.ErrNotFound also if the session has ended before.
func (c *Cache) Rotate(ctx context.Context, s models.Session, epoch int64, write func(next models.Session) error) (token string, _ models.Session, err error) {
	ctx = redis.EnsureBudget(ctx) // two calls
	next, err := c.fromRow(ctx, s.Hash)
	if err != nil {
		return "", models.Session{}, fmt.Errorf("rotate session %s: %w", s.ID, err)
	}
	token, next.Hash = newToken()
	used := c.activity.used(next.Hash, time.Now())
	next.LastSeen, next.IdleAt, next.Epoch = used.LastSeen, used.IdleAt, epoch+1
	if err := write(next); err != nil {
		return "", models.Session{}, fmt.Errorf("rotate session %s: %w", s.ID, err)
	}
	c.forget(s.Hash)
	c.Sync(ctx)
	if stored, err := c.fromRow(ctx, next.Hash); err == nil {
		next = stored
	}
	return token, next, nil
}

// newToken returns 256 random bits and what is stored of them.
func newToken() (token, hash string) {
	raw := make([]byte, tokenBytes)
	_, _ = rand.Read(raw) // never fails
	token = base64.RawURLEncoding.EncodeToString(raw)
	return token, hashToken(token)
}

// shorten cuts text to at most limit bytes of whole characters.
func shorten(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}
