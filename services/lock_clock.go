package services

import (
	"strconv"
	"sync"
	"time"
)

// clockMemory is how long an estimate of the server's clock is believed: a clock
// that was put back is noticed after so long.
const clockMemory = 10 * time.Second

// serverClock estimates the server's clock from the times in its replies, so that
// a request can say until when it may be executed. It is never ahead of the server
// by more than the server's own clock was put back, and behind by the quickest
// reply of late.
type serverClock struct {
	mu    sync.Mutex
	base  time.Time     // where the local side counts from, monotonic
	ahead time.Duration // the server's milliseconds since 1970, less the local time since base
	known time.Time     // when the estimate was taken
}

// heard learns from a reply that arrived at local and said server, in milliseconds.
// The quickest reply is the best estimate: the reply's way only makes it smaller.
func (c *serverClock) heard(local time.Time, server int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.base.IsZero() {
		c.base = local
	}
	ahead := time.Duration(server)*time.Millisecond - local.Sub(c.base)
	if c.known.IsZero() || ahead > c.ahead || local.Sub(c.known) > clockMemory {
		c.ahead, c.known = ahead, local
	}
}

// after is the server's time in milliseconds when d has passed since local, as the
// scripts compare it; "9", later than any, while nothing is known.
func (c *serverClock) after(local time.Time, d time.Duration) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known.IsZero() {
		return "9"
	}
	return strconv.FormatInt((c.ahead+local.Sub(c.base)+d).Milliseconds()+1, 10)
}

// now is the server's time as it is estimated here, this instance's own while
// nothing is known.
func (c *serverClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	local := time.Now()
	if c.known.IsZero() {
		return local.UTC().Truncate(time.Millisecond)
	}
	return time.UnixMilli((c.ahead + local.Sub(c.base)).Milliseconds()).UTC()
}
