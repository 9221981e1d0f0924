package redis

import "time"

// What the tests outside the package see of it.
const (
	RunsUnderway = runsUnderway
	BatchCalls   = batchCalls
)

// WithEvictionInterval sets the time between two checks of the eviction policy.
func (o Options) WithEvictionInterval(d time.Duration) Options {
	o.evictionInterval = d
	return o
}

// RefreshSlots does what each call does that fails because a slot moves.
func (r *Client) RefreshSlots() { r.refreshSlots() }

// SetPatience sets how long a call waits for others.
func (b *Batcher) SetPatience(d time.Duration) { b.patience = d }

// Underway counts the runs that have not returned.
func (b *Batcher) Underway() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.underway
}
