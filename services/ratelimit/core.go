package ratelimit

import (
	"slices"

	"gatehouse/models"
)

// This file holds the two algorithms as pure functions of a clock in
// microseconds. They decide when Redis is away, and mirror
// lua/rate_limit_sliding_log.lua and lua/rate_limit_gcra.lua step by step.

// maxCost is more than any policy admits; higher costs are the same refusal.
const maxCost = 1_000_001

// rule is a policy as the algorithms need it.
type rule struct {
	limit  int64
	window int64 // microseconds
	burst  int64 // units that a bucket admits at once; 0 makes it a sliding log
}

func ruleOf(p *models.Policy) rule {
	r := rule{limit: p.Limit, window: p.Window.Microseconds()}
	if p.Algorithm == models.AlgorithmGCRA || p.Algorithm == models.AlgorithmAuto && p.Limit > models.MaxSlidingLogLimit {
		r.burst = max(1, p.Limit/10)
	}
	return r
}

// refill is how many units a bucket gives back in a window. Burst and refill
// together are the limit, so no window sees more; with a limit of 1 the single
// unit comes back after a window.
func (r rule) refill() int64 { return max(1, r.limit-r.burst) }

// verdict is what an algorithm says about a hit. Durations are microseconds.
type verdict struct {
	passes    bool
	remaining int64
	retry     int64 // until the hit passes; 0 if it does
	more      int64 // until more quota is there; 0 when all is
	at        int64 // the clock it was decided by
}

// slidingLog remembers each admission of the last window, so that no window ever
// holds more than the limit. An admission leaves when it is exactly a window
// old. The zero value is empty.
type slidingLog struct {
	entries []admission // oldest first
	used    int64       // sum of their costs
}

type admission struct {
	at, id, cost int64
	told         int64 // by the server's clock, where Redis has it
}

// look decides about cost at now without counting it. It forgets what has left
// the window. Cost 0 always passes.
func (l *slidingLog) look(now int64, r rule, cost int64) verdict {
	v := verdict{passes: true, at: l.forget(now, r.window)}
	if over := l.used + cost - r.limit; over > 0 && cost > 0 {
		v.passes = false
		v.retry = r.window
		if cost <= r.limit {
			v.retry = l.nth(over) + r.window - v.at
		}
	}
	v.remaining = max(0, r.limit-l.used)
	if len(l.entries) > 0 {
		v.more = l.nth(max(1, l.used-r.limit+1)) + r.window - v.at // over the limit if that was lowered
	}
	return v
}

// forget drops what has left the window and returns now, or the newest
// admission's time if the clock was ahead of now: time never goes back.
func (l *slidingLog) forget(now, window int64) int64 {
	if len(l.entries) == 0 {
		return now
	}
	now = max(now, l.entries[len(l.entries)-1].at)
	gone := 0
	for gone < len(l.entries) && l.entries[gone].at <= now-window {
		l.used -= l.entries[gone].cost
		gone++
	}
	if l.entries = l.entries[gone:]; len(l.entries) == 0 {
		l.entries = nil
	}
	return now
}

// nth is the time at which the n-th oldest unit was admitted.
func (l *slidingLog) nth(n int64) int64 {
	for _, e := range l.entries {
		if n -= e.cost; n <= 0 {
			return e.at
		}
	}
	return l.entries[len(l.entries)-1].at
}

// add counts an admission at the clock of look.
func (l *slidingLog) add(at, id, cost int64) {
	l.entries = append(l.entries, admission{at: at, id: id, cost: cost})
	l.used += cost
}

// remove takes back exactly what the call with this id added.
func (l *slidingLog) remove(id int64) {
	i := slices.IndexFunc(l.entries, func(e admission) bool { return e.id == id })
	if i < 0 {
		return
	}
	l.used -= l.entries[i].cost
	l.entries = slices.Delete(l.entries, i, i+1)
}

// removeAt takes cost back of what was admitted at a time, where several calls
// share an entry.
func (l *slidingLog) removeAt(at, cost int64) {
	for i := len(l.entries) - 1; i >= 0; i-- {
		e := &l.entries[i]
		if e.at > at {
			continue
		}
		cost = min(cost, e.cost)
		e.cost -= cost
		l.used -= cost
		if e.cost == 0 {
			l.entries = slices.Delete(l.entries, i, i+1)
		}
		return
	}
}

// bucket is GCRA as a leaking bucket of whole numbers: a unit is worth window,
// and each microsecond refill leaks out. The zero value is empty.
type bucket struct {
	level int64 // at the time last
	last  int64
}

// look decides about cost at now without counting it. Cost 0 always passes, a
// cost above the burst never does.
func (b bucket) look(now int64, r rule, cost int64) verdict {
	b = b.leaked(now, r)
	v := verdict{passes: true, at: b.last}
	if over := b.level - (r.burst-cost)*r.window; over > 0 && cost > 0 {
		v.passes = false
		v.retry = r.window
		if cost <= r.burst {
			v.retry = ceilDiv(over, r.refill())
		}
	}
	v.remaining = max(0, r.burst-ceilDiv(b.level, r.window))
	if b.level > 0 {
		v.more = ceilDiv(b.level-(r.burst-v.remaining-1)*r.window, r.refill())
	}
	return v
}

// leaked is the bucket at now; time never goes back.
func (b bucket) leaked(now int64, r rule) bucket {
	elapsed := max(0, now-b.last)
	if elapsed < ceilDiv(b.level, r.refill()) {
		b.level -= elapsed * r.refill()
	} else {
		b.level = 0
	}
	b.last = max(now, b.last)
	return b
}

// add counts cost at the clock of look.
func (b *bucket) add(at int64, r rule, cost int64) {
	*b = b.leaked(at, r)
	b.level += cost * r.window
}

// remove takes back what is surely left of cost units admitted at a time.
// Some may have leaked out since: taking back more would give away quota that
// others have used.
func (b *bucket) remove(now int64, r rule, cost, at int64) {
	left := cost * r.window
	left -= min(max(0, max(now, b.last)-at), ceilDiv(left, r.refill())) * r.refill()
	if left > 0 {
		*b = b.leaked(now, r)
		b.level = max(0, b.level-left)
	}
}

// ceilDiv is a/b rounded up, for a >= 0 and b > 0.
func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }
