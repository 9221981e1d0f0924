package ratelimit

import "slices"

// slidingLog remembers each admission of the last window, so that no window ever holds more
// than the limit. An admission leaves when it is exactly a window old. Those of a block that an
// instance still uses are ahead of the clock: they count from the block's end on.
// lua/sliding_log.lua is the same, step by step. The zero value is empty.
type slidingLog struct {
	entries []admission // oldest first
	used    int64       // sum of their costs
}

type admission struct {
	at, id, cost int64
	serverAt     int64 // by the server's clock, where Redis has it
}

// look decides about cost at now without counting it, and forgets what has left the window. It
// is a pure function of the log and now otherwise. Cost 0 always passes.
func (l *slidingLog) look(now int64, r rule, cost int64) result {
	v := result{passes: true, at: l.forget(now, r)}
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

// forget drops what has left the window. It returns now, or what the newest admission says if that
// is later: the clock cannot have been before, less how far ahead that one may be.
func (l *slidingLog) forget(now int64, r rule) int64 {
	if len(l.entries) == 0 {
		return now
	}
	now = max(now, l.entries[len(l.entries)-1].at-r.ahead)
	gone := 0
	for gone < len(l.entries) && l.entries[gone].at <= now-r.window {
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
func (l *slidingLog) add(at, id, cost int64) { l.insert(admission{at: at, id: id, cost: cost}) }

// insert puts an admission where it belongs. That is the end, or before those ahead of the clock.
func (l *slidingLog) insert(e admission) {
	at := len(l.entries)
	for at > 0 && l.entries[at-1].at > e.at {
		at--
	}
	if at == len(l.entries) {
		l.entries = append(l.entries, e)
	} else {
		l.entries = slices.Insert(l.entries, at, e)
	}
	l.used += e.cost
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

// removeAt takes back cost of what was admitted at a time, where several calls share an entry.
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
