package session

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gatehouse/models"
)

const (
	redisFor   = 10 * time.Minute // at most: shorter than the tail holds entries
	tokenBytes = 32
)

// remember renews the copies in memory and in Redis. It reports whether Redis now
// has this copy or a newer one.
func (c *Cache) remember(ctx context.Context, key sessionKey, known sessionCopy) (inRedis bool) {
	c.memory.put(key, known, 0)
	left := min(redisFor, time.Until(known.ExpiresAt))
	if left < time.Millisecond {
		return true // it ends before it could be read
	}
	text, err := c.encode(known)
	if err != nil {
		c.log.Error("a session cannot be encoded", "session", known.ID, "error", err)
		return false
	}
	_, err = c.redis.Exec(ctx, c.keep, []string{c.redisKey(known.Hash)},
		[]string{strconv.FormatInt(known.Version, 10), text, strconv.FormatInt(left.Milliseconds(), 10)})
	return err == nil
}

// forget drops the copy in memory.
func (c *Cache) forget(hash string) {
	if key, ok := keyOfHash(hash); ok {
		c.memory.remove(key)
	}
}

// fromRedis returns the session if Redis has a copy that counts.
func (c *Cache) fromRedis(ctx context.Context, key sessionKey, hash string) (*models.Session, bool) {
	if !c.tail.isTrusted(time.Now()) { // no copy counts now, and a 503 must not wait for Redis first
		return nil, false
	}
	until, changes := time.Now().Add(redisFor), c.memory.changes(key)
	read, err := c.tracking.Get(ctx, c.redisKey(hash))
	if err != nil {
		return nil, false
	}
	known := sessionCopy{ReadAt: read.RightAt, Tracked: read.Generation, TrackedUntil: until}
	if err := c.decode(&known, hash, read.Text); err != nil {
		if !errors.Is(err, errSealed) { // while keys are changed, others seal with one that we do not have
			c.log.Warn("a copy of a session in Redis cannot be read", "error", err)
		}
		return nil, false
	}
	if there := c.memory.get(key); there != nil { // it may have been used since Redis got its copy
		if s := there.session.Load(); s.IdleAt.After(known.IdleAt) {
			known.LastSeen, known.IdleAt = s.LastSeen, s.IdleAt
		}
	}
	return c.accept(c.memory.put(key, known, changes), time.Now())
}

// changedInRedis marks the copy in memory of what Redis reports as changed.
func (c *Cache) changedInRedis(name string) {
	if key, ok := keyOfHash(strings.TrimPrefix(name, c.redisKey(""))); ok {
		c.memory.invalidate(key)
	}
}

func (c *Cache) redisKey(hash string) string { return c.redis.Key(redisSessions + hash) }

// copyDocument is a copy as it is sealed for Redis; times in Unix microseconds.
type copyDocument struct {
	Position  int64    `json:"pos"`
	Mark      int64    `json:"mark"`
	ID        string   `json:"id"`
	UserID    string   `json:"user,omitempty"`
	Email     string   `json:"email,omitempty"`
	Roles     []string `json:"roles,omitempty"`
	Epoch     int64    `json:"epoch"`
	Data      []byte   `json:"data,omitempty"`
	CreatedAt int64    `json:"created"`
	LastSeen  int64    `json:"seen"`
	IdleAt    int64    `json:"idle"`
	ExpiresAt int64    `json:"expires"`
	UserAgent string   `json:"agent,omitempty"`
	IP        string   `json:"ip,omitempty"`
}

// encode writes "<version> <sealed document>"; the script compares versions.
func (c *Cache) encode(k sessionCopy) (string, error) {
	document, err := json.Marshal(copyDocument{
		Position: k.Position.seq, Mark: k.Position.mark,
		ID: k.ID, UserID: k.User.ID, Email: k.User.Email, Roles: k.Roles, Epoch: k.Epoch,
		Data: k.Data, CreatedAt: k.CreatedAt.UnixMicro(), LastSeen: k.LastSeen.UnixMicro(),
		IdleAt: k.IdleAt.UnixMicro(), ExpiresAt: k.ExpiresAt.UnixMicro(), UserAgent: k.UserAgent, IP: k.IP,
	})
	if err != nil {
		return "", err
	}
	version := strconv.FormatInt(k.Version, 10)
	return version + " " + string(c.seal.seal(document, k.Hash+" "+version)), nil
}

// decode fills in the session and the position of a copy.
func (c *Cache) decode(known *sessionCopy, hash, text string) error {
	versionText, sealed, _ := strings.Cut(text, " ")
	version, err := strconv.ParseInt(versionText, 10, 64)
	if err != nil {
		return fmt.Errorf("decode session copy: %w", err)
	}
	document, err := c.seal.open([]byte(sealed), hash+" "+versionText)
	if err != nil {
		return fmt.Errorf("decode session copy: %w", err)
	}
	var d copyDocument
	if err := json.Unmarshal(document, &d); err != nil {
		return fmt.Errorf("decode session copy: %w", err)
	}
	known.Position = logPosition{d.Position, d.Mark}
	known.Session = models.Session{
		Hash: hash, ID: d.ID, User: models.UserRef{ID: d.UserID, Email: d.Email}, Roles: d.Roles, Epoch: d.Epoch,
		Data: d.Data, Version: version, CreatedAt: time.UnixMicro(d.CreatedAt).UTC(),
		LastSeen: time.UnixMicro(d.LastSeen).UTC(), IdleAt: time.UnixMicro(d.IdleAt).UTC(),
		ExpiresAt: time.UnixMicro(d.ExpiresAt).UTC(), UserAgent: d.UserAgent, IP: d.IP,
	}
	return nil
}

// isSessionToken reports whether a token can be one of ours at all.
func isSessionToken(token string) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	// The decoder skips line breaks, hence the length of both.
	return err == nil && len(raw) == tokenBytes && len(token) == base64.RawURLEncoding.EncodedLen(tokenBytes)
}
