package session

import (
	"time"
)

// Loaded reports whether the revocation log was read: from then on rows are copied.
func (c *Cache) Loaded() bool { _, ok := c.follower.offset(); return ok }

// Tracks reports whether a token's session is in memory and Redis reports its
// changes, so that it is good for longer than 2 s.
func (c *Cache) Tracks(token string) bool {
	key, _ := keyOfToken(token)
	held := c.memory.get(key)
	return held != nil && !held.stale.Load() && c.tracking.Covers(held.generation, time.Now())
}

// Evict drops the copy of a token's session in memory, as happens when there is no room.
func (c *Cache) Evict(token string) {
	key, _ := keyOfToken(token)
	c.memory.remove(key)
}
