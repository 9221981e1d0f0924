package lock

import (
	"strconv"
	"sync"
	"sync/atomic"
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
	wall     func() time.Time // this instance's
	mu       sync.Mutex       // of those who take an estimate
	estimate atomic.Pointer[clockEstimate]
}

type clockEstimate struct {
	known time.Time     // when it was taken; the local side counts from here, monotonic
	ahead time.Duration // the server's time since 1970 at known
}

func (e *clockEstimate) at(local time.Time) time.Duration { return e.ahead + local.Sub(e.known) }

// observe takes in a reply that arrived at local and said server, in milliseconds.
// The quickest reply is the best estimate: the reply's way only makes it smaller.
func (c *serverClock) observe(local time.Time, server int64) {
	said := time.Duration(server) * time.Millisecond
	if c.worse(local, said) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.worse(local, said) {
		c.estimate.Store(&clockEstimate{local, said})
	}
}

func (c *serverClock) worse(local time.Time, said time.Duration) bool {
	best := c.estimate.Load()
	return best != nil && said <= best.at(local) && local.Sub(best.known) <= clockMemory
}

// after is the server's time in milliseconds when d has passed since local, as the
// scripts compare it; "9", later than any, while nothing is known.
func (c *serverClock) after(local time.Time, d time.Duration) string {
	best := c.estimate.Load()
	if best == nil {
		return "9"
	}
	return strconv.FormatInt((best.at(local)+d).Milliseconds()+1, 10)
}

// arrival is the server's time at local in microseconds, as queues are sorted by; empty
// while nothing is known.
func (c *serverClock) arrival(local time.Time) string {
	best := c.estimate.Load()
	if best == nil {
		return ""
	}
	return strconv.FormatInt(best.at(local).Microseconds(), 10)
}

// now is the server's time as it is estimated here, this instance's own while
// nothing is known.
func (c *serverClock) now() time.Time {
	best := c.estimate.Load()
	if best == nil {
		return c.wall().UTC().Truncate(time.Millisecond)
	}
	return time.UnixMilli(best.at(time.Now()).Milliseconds()).UTC()
}
