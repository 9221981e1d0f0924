package services

import "time"

// endedMost is how many ended grants are remembered at least, whatever their age.
const endedMost = 1 << 15

// endedGrants remembers the grants that are over for as long as anybody could ask
// about them, and the last 32,768 to 65,536 of them if there are more. A grant that
// is forgotten counts without Redis as one of another instance.
type endedGrants struct {
	keep          time.Duration
	newer, before map[string]struct{}
	since         time.Time // of newer
}

func newEndedGrants(keep time.Duration) *endedGrants {
	return &endedGrants{keep: keep, newer: map[string]struct{}{}}
}

func (e *endedGrants) add(now time.Time, grant string) {
	if len(e.newer) >= endedMost || now.Sub(e.since) > e.keep {
		e.newer, e.before, e.since = make(map[string]struct{}, len(e.newer)), e.newer, now
	}
	e.newer[grant] = struct{}{}
}

func (e *endedGrants) has(grant string) bool {
	_, newer := e.newer[grant]
	_, before := e.before[grant]
	return newer || before
}
