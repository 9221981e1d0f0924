package services

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
)

const (
	memoryFor     = 2 * time.Second  // a copy in memory is used for so long
	memoryMax     = 10_000           // sessions
	redisFor      = 10 * time.Minute // at most: shorter than the tail holds entries
	redisLocalFor = 10 * time.Second // in rueidis's own cache, should an invalidation be lost
	owedMax       = 10_000
	owedInterval  = time.Second

	tokenBytes = 32
)

// sessionCopy is a session as it was read, and when.
type sessionCopy struct {
	models.Session
	// Position is where this instance's tail stood before the row was read.
	Position int64
	// ReadAt is the monotonic instant before it was read.
	ReadAt time.Time
}

// sessionMemory holds decoded copies, at most memoryMax.
type sessionMemory struct {
	mu     sync.RWMutex
	copies map[string]sessionCopy
}

func newSessionMemory() *sessionMemory {
	return &sessionMemory{copies: map[string]sessionCopy{}}
}

func (m *sessionMemory) get(hash string, now time.Time) (sessionCopy, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	known, ok := m.copies[hash]
	return known, ok && now.Sub(known.ReadAt) < memoryFor
}

// holds reports whether there is a copy, however old.
func (m *sessionMemory) holds(hash string) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, ok := m.copies[hash]
	return ok
}

// put keeps the newer of two copies.
func (m *sessionMemory) put(known sessionCopy) {
	m.mu.Lock()
	defer m.mu.Unlock()
	there, ok := m.copies[known.Hash]
	if ok && known.ReadAt.Sub(there.ReadAt) < memoryFor &&
		(there.Version > known.Version || there.ReadAt.After(known.ReadAt)) {
		return
	}
	for hash := range m.copies { // any one: all are renewed every 2 s anyway
		if len(m.copies) < memoryMax {
			break
		}
		delete(m.copies, hash)
	}
	m.copies[known.Hash] = known
}

func (m *sessionMemory) remove(hash string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.copies, hash)
}

// remember renews the copies in memory and in Redis.
func (c *SessionCache) remember(ctx context.Context, known sessionCopy) {
	c.memory.put(known)
	left := min(redisFor, time.Until(known.ExpiresAt))
	if left < time.Millisecond {
		return
	}
	text, err := known.encode()
	if err != nil {
		c.log.Error("a session cannot be encoded", "session", known.ID, "error", err)
		return
	}
	_, err = c.redis.Exec(ctx, c.keep, []string{c.sessionKey(known.Hash)},
		[]string{strconv.FormatInt(known.Version, 10), text, milliseconds(left)})
	if err == nil {
		c.owed.paid(known.Hash)
	}
}

// forget drops the copies. The one in Redis counts no more by itself if the
// session ended; else it must not outlive newer values.
func (c *SessionCache) forget(hash string) { c.memory.remove(hash) }

// dropFromRedis removes the copy in Redis, when Redis returns if not now.
func (c *SessionCache) dropFromRedis(ctx context.Context, hash string) {
	c.owed.add(hash)
	if c.deleteKeys(ctx, hash) == nil {
		c.owed.paid(hash)
	}
}

func (c *SessionCache) deleteKeys(ctx context.Context, hash string) error {
	_, err := c.redis.Do(ctx, func(ctx context.Context, r rueidis.Client) rueidis.RedisResult {
		return r.Do(ctx, r.B().Del().Key(c.sessionKey(hash)).Build())
	})
	return err
}

// settle pays what is owed while Redis is there.
func (c *SessionCache) settle(ctx context.Context) {
	ticker := time.NewTicker(owedInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if c.redis.Available() {
				c.payOwed(ctx)
			}
		case <-ctx.Done():
			return
		}
	}
}

// payOwed removes copies that Redis kept from before it went away.
func (c *SessionCache) payOwed(ctx context.Context) {
	for _, hash := range c.owed.all() {
		if c.deleteKeys(ctx, hash) != nil {
			return // tried again soon
		}
		c.owed.paid(hash)
	}
}

// owedDeletes are the copies in Redis that hold values older than the database.
// They expire by themselves, so a full set forgets some.
type owedDeletes struct {
	mu     sync.Mutex
	hashes map[string]struct{}
}

func newOwedDeletes() *owedDeletes { return &owedDeletes{hashes: map[string]struct{}{}} }

func (o *owedDeletes) add(hash string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.hashes) < owedMax {
		o.hashes[hash] = struct{}{}
	}
}

func (o *owedDeletes) has(hash string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.hashes[hash]
	return ok
}

func (o *owedDeletes) paid(hash string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.hashes, hash)
}

func (o *owedDeletes) all() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	hashes := make([]string, 0, len(o.hashes))
	for hash := range o.hashes {
		hashes = append(hashes, hash)
	}
	return hashes
}

// fromRedis returns the session if Redis has a copy that counts.
func (c *SessionCache) fromRedis(ctx context.Context, hash string) (models.Session, bool) {
	if c.owed.has(hash) {
		return models.Session{}, false
	}
	readAt := time.Now()
	msg, err := c.redis.Do(ctx, func(ctx context.Context, r rueidis.Client) rueidis.RedisResult {
		return r.DoCache(ctx, r.B().Get().Key(c.sessionKey(hash)).Cache(), redisLocalFor)
	})
	if err != nil {
		return models.Session{}, false
	}
	text, err := msg.ToString()
	if err != nil {
		return models.Session{}, false
	}
	known, err := decodeSessionCopy(hash, text)
	if err != nil {
		c.log.Warn("a copy of a session in Redis cannot be read", "error", err)
		return models.Session{}, false
	}
	known.ReadAt = readAt
	s, ok := c.accept(known, time.Now())
	if ok {
		c.memory.put(known)
	}
	return s, ok
}

func (c *SessionCache) sessionKey(hash string) string { return c.redis.Key("session:" + hash) }

// copyDocument is a copy as it is written to Redis; times in Unix microseconds.
type copyDocument struct {
	Position  int64    `json:"pos"`
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

// encode writes "<version> <document>"; the script compares versions.
func (k sessionCopy) encode() (string, error) {
	document, err := json.Marshal(copyDocument{
		Position: k.Position, ID: k.ID, UserID: k.User.ID, Email: k.User.Email, Roles: k.Roles, Epoch: k.Epoch,
		Data: k.Data, CreatedAt: k.CreatedAt.UnixMicro(), LastSeen: k.LastSeen.UnixMicro(),
		IdleAt: k.IdleAt.UnixMicro(), ExpiresAt: k.ExpiresAt.UnixMicro(), UserAgent: k.UserAgent, IP: k.IP,
	})
	return strconv.FormatInt(k.Version, 10) + " " + string(document), err
}

func decodeSessionCopy(hash, text string) (sessionCopy, error) {
	versionText, document, _ := strings.Cut(text, " ")
	version, err := strconv.ParseInt(versionText, 10, 64)
	if err != nil {
		return sessionCopy{}, fmt.Errorf("decode session copy: %w", err)
	}
	var d copyDocument
	if err := json.Unmarshal([]byte(document), &d); err != nil {
		return sessionCopy{}, fmt.Errorf("decode session copy: %w", err)
	}
	return sessionCopy{Position: d.Position, Session: models.Session{
		Hash: hash, ID: d.ID, User: models.UserRef{ID: d.UserID, Email: d.Email}, Roles: d.Roles, Epoch: d.Epoch,
		Data: d.Data, Version: version, CreatedAt: time.UnixMicro(d.CreatedAt).UTC(),
		LastSeen: time.UnixMicro(d.LastSeen).UTC(), IdleAt: time.UnixMicro(d.IdleAt).UTC(),
		ExpiresAt: time.UnixMicro(d.ExpiresAt).UTC(), UserAgent: d.UserAgent, IP: d.IP,
	}}, nil
}

// isSessionToken reports whether a token can be one of ours at all.
func isSessionToken(token string) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	// The decoder skips line breaks, hence the length of both.
	return err == nil && len(raw) == tokenBytes && len(token) == base64.RawURLEncoding.EncodedLen(tokenBytes)
}
