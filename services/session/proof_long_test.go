package session_test

import (
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// inFull is what a long proof does: n, or n / GATEHOUSE_PROOF_PART to see first
// how long it would take.
func inFull(n int) int {
	if part, err := strconv.Atoi(os.Getenv("GATEHOUSE_PROOF_PART")); err == nil && part > 0 {
		return max(1, n/part)
	}
	return n
}

// countdown hands out the steps of a proof to its workers, and logs every 30 s
// how far a long one is: go test -v shows it meanwhile.
type countdown struct {
	t      *testing.T
	all    int
	left   atomic.Int64
	began  time.Time
	logged atomic.Int64 // when, since began
}

func newCountdown(t *testing.T, all int) *countdown {
	c := &countdown{t: t, all: all, began: time.Now()}
	c.left.Store(int64(all))
	return c
}

// next reports whether there is a step left; there is none after a failure.
func (c *countdown) next() bool {
	left := c.left.Add(-1)
	if left < 0 || c.t.Failed() {
		return false
	}
	took, logged := time.Since(c.began), c.logged.Load()
	if took-time.Duration(logged) > 30*time.Second && c.logged.CompareAndSwap(logged, int64(took)) {
		done := c.all - int(left)
		rest := time.Duration(float64(took) / float64(done) * float64(left))
		c.t.Logf("%d of %d after %v, about %v to go", done, c.all, took.Round(time.Second), rest.Round(time.Second))
	}
	return true
}
