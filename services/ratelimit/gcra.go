package ratelimit

// bucket is GCRA (the generic cell rate algorithm, ITU-T I.371), written as a leaking bucket of
// whole numbers. A unit is worth a window, and each microsecond refill leaks out. It admits burst
// units at once and refill units in each further window; together they are the limit. lua/gcra.lua
// is the same, step by step. The zero value is empty.
type bucket struct {
	level int64 // at the time last
	last  int64
}

// look decides about cost at now without counting it. Cost 0 always passes, a cost above the
// burst never does.
func (b bucket) look(now int64, r rule, cost int64) result {
	b = b.leaked(now, r)
	v := result{passes: true, at: b.last}
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

// remove takes back what is surely left of cost units that were admitted at a time. Some may
// have leaked out since. To take back more would give away quota that others have used.
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
