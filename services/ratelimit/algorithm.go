package ratelimit

import "gatehouse/models"

// rule is a policy as the algorithms need it.
type rule struct {
	limit  int64
	window int64 // microseconds
	burst  int64 // units that a bucket admits at once; 0 makes it a sliding log
	ahead  int64 // how far ahead of the clock a log may count admissions, in microseconds
}

func ruleOf(p *models.Policy) rule {
	r := rule{limit: p.Limit, window: p.Window.Microseconds(), ahead: maxAhead}
	if p.Algorithm == models.AlgorithmGCRA || p.Algorithm == models.AlgorithmAuto && p.Limit > models.MaxSlidingLogLimit {
		r.burst, r.ahead = max(1, p.Limit/10), 0
	}
	return r
}

// refill is how many units a bucket gives back in a window. Burst and refill together are the
// limit, so no window sees more. With a limit of 1 the single unit comes back after a window.
func (r rule) refill() int64 { return max(1, r.limit-r.burst) }

// result is what an algorithm says about a request. Durations are microseconds.
type result struct {
	passes    bool
	remaining int64
	retry     int64 // until the hit passes; 0 if it does
	more      int64 // until more quota is there; 0 when all is
	at        int64 // the clock it was decided by; of a unit of an autoBlock, that of the block
	fromBlock bool  // it is such a unit
	unit      int64 // its id; 0 in a bucket
}

// after is the result some microseconds later.
func (v result) after(elapsed int64) result {
	v.more = max(0, v.more-elapsed)
	v.retry = max(0, v.retry-elapsed)
	return v
}

// counter counts a key by the algorithm of its rule, and leaves the other one's state alone: the
// policy may change back. It is pure: it takes its clock, in microseconds, as an argument.
// lua/hit.lua is the same at Redis. The zero value is empty.
type counter struct {
	log    slidingLog
	bucket bucket
}

// look decides about cost at now without counting it.
func (c *counter) look(now int64, r rule, cost int64) result {
	if r.burst > 0 {
		return c.bucket.look(now, r, cost)
	}
	return c.log.look(now, r, cost)
}

// add counts cost at the clock of look.
func (c *counter) add(at int64, r rule, id, cost int64) {
	if r.burst > 0 {
		c.bucket.add(at, r, cost)
	} else {
		c.log.add(at, id, cost)
	}
}

// addAdmitted counts cost that Redis admitted at now, and no more than the limit with what was
// there: Redis forgot some of that sooner.
func (c *counter) addAdmitted(now int64, r rule, id, cost int64) {
	if r.burst > 0 {
		c.bucket.add(now, r, cost)
		c.bucket.level = min(c.bucket.level, r.burst*r.window)
		return
	}
	c.log.add(c.log.forget(now, r), id, cost)
	for c.log.used > r.limit && len(c.log.entries) > 1 {
		c.log.used -= c.log.entries[0].cost
		c.log.entries = c.log.entries[1:]
	}
}

// remove takes back what the call with this id added at a time.
func (c *counter) remove(now int64, r rule, id, cost, at int64) {
	if r.burst > 0 {
		c.bucket.remove(now, r, cost, at)
	} else {
		c.log.remove(id)
	}
}
