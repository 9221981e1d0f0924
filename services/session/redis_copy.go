package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gatehouse/models"
)

const (
	keyPrefix = "session:"       // before the hash, in the names of keys
	redisFor  = 10 * time.Minute // a copy lives at most: shorter than the log follower holds entries
)

// remember renews the copies in memory and in Redis. It reports whether Redis now has this
// copy or a newer one.
func (c *Cache) remember(ctx context.Context, key memoryKey, s models.Session, offset logOffset, readAt time.Time) (inRedis bool) {
	c.memory.put(key, newCopy(s, offset, readAt), 0)
	left := min(redisFor, time.Until(s.ExpiresAt))
	if left < time.Millisecond {
		return true // it ends before it could be read
	}
	text, err := c.encode(s, offset)
	if err != nil {
		c.log.Error("a session cannot be encoded", "session", s.ID, "error", err)
		return false
	}
	_, err = c.redis.Exec(ctx, c.store, []string{c.redisKey(s.Hash)},
		[]string{strconv.FormatInt(s.Version, 10), text, strconv.FormatInt(left.Milliseconds(), 10)})
	return err == nil
}

// forget drops the copy in memory.
func (c *Cache) forget(hash string) {
	if key, ok := keyOfHash(hash); ok {
		c.memory.remove(key)
	}
}

// fromRedis returns the session if Redis has a valid copy.
func (c *Cache) fromRedis(ctx context.Context, key memoryKey, hash string) (*models.Session, bool) {
	if !c.follower.trusted(time.Now()) { // no copy is valid now, and a 503 must not wait for Redis first
		return nil, false
	}
	until, changes := time.Now().Add(redisFor), c.memory.changes(key)
	read, err := c.tracking.Get(ctx, c.redisKey(hash))
	if err != nil {
		return nil, false
	}
	s, offset, err := c.decode(hash, read.Text)
	if err != nil {
		if !errors.Is(err, errSealed) { // while secrets are changed, others seal with one that this instance does not have
			c.log.Warn("a copy of a session in Redis cannot be read", "error", err)
		}
		return nil, false
	}
	held := newCopy(s, offset, read.RightAt)
	held.generation, held.trackedUntil = read.Generation, until
	if used, ok := c.activity.last(hash); ok { // since Redis got its copy
		held.used(used.LastSeen, used.IdleAt)
	}
	return c.accept(c.memory.put(key, held, changes), time.Now())
}

func (c *Cache) redisKey(hash string) string { return c.redis.Key(keyPrefix + hash) }

// redisCopy is what is sealed for Redis.
type redisCopy struct {
	Seq, Nonce int64 // the log's offset before the row was read
	Session    models.Session
}

// encode returns "<version> <sealed copy>"; the script compares versions.
func (c *Cache) encode(s models.Session, offset logOffset) (string, error) {
	hash := s.Hash
	s.Hash = "" // the key's name says it
	text, err := json.Marshal(redisCopy{offset.seq, offset.nonce, s})
	if err != nil {
		return "", err
	}
	version := strconv.FormatInt(s.Version, 10)
	return version + " " + string(c.sealer.seal(text, hash+" "+version)), nil
}

// decode is the reverse. It fails for a copy of another session or version.
func (c *Cache) decode(hash, text string) (models.Session, logOffset, error) {
	version, sealed, _ := strings.Cut(text, " ")
	opened, err := c.sealer.open([]byte(sealed), hash+" "+version)
	if err != nil {
		return models.Session{}, logOffset{}, fmt.Errorf("decode session copy: %w", err)
	}
	var read redisCopy
	if err := json.Unmarshal(opened, &read); err != nil {
		return models.Session{}, logOffset{}, fmt.Errorf("decode session copy: %w", err)
	}
	read.Session.Hash = hash
	return read.Session, logOffset{read.Seq, read.Nonce}, nil
}
