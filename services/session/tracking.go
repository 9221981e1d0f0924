package session

import (
	"strings"
	"time"
)

// untrackedFor is how long a copy in memory is used whose changes Redis does not report.
const untrackedFor = 2 * time.Second

// changedInRedis is called for each key that Redis reports as changed.
func (c *Cache) changedInRedis(name string) {
	if key, ok := keyOfHash(strings.TrimPrefix(name, c.redisKey(""))); ok {
		c.memory.invalidate(key)
	}
}

// fresh reports whether the data of a copy in memory is new enough: it was just read, or Redis
// would have reported a change.
func (c *Cache) fresh(held *memoryCopy, now time.Time) bool {
	if held.stale.Load() {
		return false
	}
	return now.Sub(held.readAt) < untrackedFor || (now.Before(held.trackedUntil) && c.tracking.Covers(held.generation, now))
}
