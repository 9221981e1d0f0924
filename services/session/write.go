package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"gatehouse/models"
)

const maxUserAgent = 400 // bytes

// Create begins a session with the User, Roles, Epoch, Data, UserAgent and IP of s,
// and returns its token, which is kept nowhere. User.ID "" is nobody: an anonymous
// session. models.ErrStale if the user's epoch is no longer Epoch, or the user is
// disabled: the password checked may have changed since. The oldest sessions of
// the user beyond MaxPerUser end.
func (c *Cache) Create(ctx context.Context, s models.Session) (token string, _ models.Session, err error) {
	token, s.Hash = newSessionToken()
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
	// Read back: what others find is what was stored.
	if stored, err := c.fromRow(ctx, s.Hash); err == nil {
		s = stored
	}
	return token, s, nil
}

// Refresh starts the idle time anew, and writes that at once. models.ErrNotFound
// if the session has ended.
func (c *Cache) Refresh(ctx context.Context, s models.Session) (models.Session, error) {
	used := c.activity.used(s.Hash, time.Now())
	err := c.writeUsedOf(ctx, s.Hash) // the row may only look idle
	var written []string
	if err == nil {
		written, err = c.database.TouchSessions(ctx, []models.Activity{used})
	}
	if err == nil && len(written) == 0 {
		err = models.ErrNotFound
	}
	if err != nil {
		return models.Session{}, fmt.Errorf("refresh session %s: %w", s.ID, err)
	}
	fresh, err := c.renew(ctx, s.Hash)
	if err != nil {
		return models.Session{}, fmt.Errorf("refresh session %s: %w", s.ID, err)
	}
	return fresh.session, nil
}

// SaveData stores data in a session if it still has s.Version, and returns the
// session as it is then. If somebody else stored in between, nothing is stored and
// it returns models.ErrStale with the session as it is now. models.ErrNotFound if
// the session has ended: it is not brought back. models.ErrUnavailable leaves open
// whether data was stored.
func (c *Cache) SaveData(ctx context.Context, s models.Session, data []byte) (models.Session, error) {
	if err := c.writeUsedOf(ctx, s.Hash); err != nil { // the row may only look idle
		return models.Session{}, fmt.Errorf("save session %s: %w", s.ID, err)
	}
	version, err := c.database.SaveSessionData(ctx, s.Hash, s.Version, data)
	if err != nil && !errors.Is(err, models.ErrStale) {
		return models.Session{}, fmt.Errorf("save session %s: %w", s.ID, err)
	}
	stale := err
	now, err := c.renew(ctx, s.Hash)
	if stale != nil {
		if err == nil {
			err = stale
		}
		return now.session, fmt.Errorf("save session %s: %w", s.ID, err)
	}
	if noteErr := c.noteUnlessInRedis(ctx, s.Hash, now); noteErr != nil {
		return models.Session{}, fmt.Errorf("save session %s: %w", s.ID, noteErr)
	}
	switch {
	case errors.Is(err, models.ErrUnavailable): // saved, but the database went away since
		s.Data, s.Version = data, version
		return s, nil
	case err != nil:
		return models.Session{}, fmt.Errorf("save session %s: %w", s.ID, err)
	}
	return now.session, nil
}

// renew replaces the copies of a session by its row.
func (c *Cache) renew(ctx context.Context, hash string) (rowRead, error) {
	c.forget(hash)
	return c.shareRow(ctx, hash)
}

// noteUnlessInRedis tells of a changed session by the log if Redis could not be
// told: older copies, those in Redis too, then do not count any more. Where there
// is no Redis, no copy lives for longer than 2 s anyway.
func (c *Cache) noteUnlessInRedis(ctx context.Context, hash string, now rowRead) error {
	if c.redis.Disabled() || (now.inRedis && !c.redis.Embedded()) {
		return nil
	}
	// The change is made: a caller that leaves does not unmake it.
	noting, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	defer cancel()
	if err := c.database.NoteChange(noting, hash); err != nil {
		return err
	}
	c.Sync(ctx)
	return nil
}

// Rotate gives session s a new token: it keeps its ID, data and end, and all other sessions
// of the user end. write stores next, with an entry for the user in the log, all or
// nothing: it replaces the session with its ID, unless that has ended or the user's epoch
// is not the given one any more, and makes the epoch next.Epoch. Its errors are returned.
func (c *Cache) Rotate(ctx context.Context, s models.Session, epoch int64, write func(next models.Session) error) (token string, _ models.Session, err error) {
	next, err := c.fromRow(ctx, s.Hash)
	if err != nil {
		return "", models.Session{}, fmt.Errorf("rotate session %s: %w", s.ID, err)
	}
	token, next.Hash = newSessionToken()
	used := c.activity.used(next.Hash, time.Now())
	next.LastSeen, next.IdleAt = used.LastSeen, used.IdleAt
	next.Epoch = epoch + 1
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

// List returns the live sessions of a user, the one that began last first.
func (c *Cache) List(ctx context.Context, userID string) ([]models.Session, error) {
	live, err := c.database.SessionsOf(ctx, userID, time.Now())
	if err != nil {
		return nil, fmt.Errorf("list sessions of user %s: %w", userID, err)
	}
	return live, nil
}

// Count returns how many live sessions a user has.
func (c *Cache) Count(ctx context.Context, userID string) (int, error) {
	live, err := c.List(ctx, userID)
	return len(live), err
}

// newSessionToken returns 256 random bits and what is stored of them.
func newSessionToken() (token, hash string) {
	raw := make([]byte, tokenBytes)
	_, _ = rand.Read(raw) // never fails
	token = base64.RawURLEncoding.EncodeToString(raw)
	return token, hashToken(token)
}

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
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
