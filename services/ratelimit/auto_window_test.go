package ratelimit

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gatehouse/models"
)

// autoTrace is instances that admit by one clock, which the test sets, and what really passed.
type autoTrace struct {
	*toTheMicrosecond
	now       int64 // microseconds
	admitted  []counted
	fromBlock int
}

func newAutoTrace(t *testing.T) *autoTrace {
	t.Helper()
	return &autoTrace{toTheMicrosecond: newToTheMicrosecond(t, true)}
}

func (a *autoTrace) pass(by time.Duration) {
	a.now += by.Microseconds()
	a.setClock(a.now)
	a.server.FastForward(by) // what remains of the keys' lives
}

// hit takes at an instance, and writes down what passed.
func (a *autoTrace) hit(l *Limiter, policy models.Policy, cost int64) models.Decision {
	a.t.Helper()
	d := take(a.t, l, models.Hit{Policy: policy, Key: "k", Cost: cost})[0]
	if d.Degraded {
		a.t.Fatalf("%+v", d)
	}
	if d.Allowed {
		a.admitted = append(a.admitted, counted{a.now, cost})
		if at := d.Admission.At - fuzzStart; at > a.now || at < a.now {
			a.fromBlock++
		}
	}
	return d
}

// check wants no window over the limit, and one that reaches it.
func (a *autoTrace) check(policy models.Policy, least int64) {
	a.t.Helper()
	highest, sum, oldest := int64(0), int64(0), 0
	for _, c := range a.admitted {
		sum += c.cost
		for ; a.admitted[oldest].at <= c.at-policy.Window.Microseconds(); oldest++ {
			sum -= a.admitted[oldest].cost
		}
		highest = max(highest, sum)
	}
	if highest > policy.Limit || highest < least {
		a.t.Errorf("%d in a window, want %d to %d", highest, least, policy.Limit)
	}
}

func TestAutoBlockWindow(t *testing.T) {
	t.Parallel()
	// Three instances, all kinds of hits, refunds and pauses: by what really passed no window of a log
	// holds more than the limit.
	t.Run("a log", func(t *testing.T) {
		t.Parallel()
		a := newAutoTrace(t)
		policy := models.Policy{Name: "log", Limit: 400, Window: time.Second, Block: models.BlockAuto}
		instances := []*Limiter{a.Limiter, a.another(), a.another()}
		rnd := rand.New(rand.NewPCG(31, 32))
		for range 2000 {
			switch {
			case rnd.IntN(400) == 0:
				a.pass(time.Duration(rnd.Int64N(int64(1200 * time.Millisecond))))
			case rnd.IntN(50) == 0:
				a.pass(time.Duration(rnd.Int64N(int64(20 * time.Millisecond))))
			default:
				a.pass(time.Duration(rnd.Int64N(int64(600 * time.Microsecond))))
			}
			l, cost := instances[rnd.IntN(3)], int64(1)
			if rnd.IntN(20) == 0 {
				cost = 2
			}
			if d := a.hit(l, policy, cost); d.Allowed && rnd.IntN(15) == 0 {
				if err := l.Refund(t.Context(), d); err != nil {
					t.Fatal(err)
				}
				a.admitted = a.admitted[:len(a.admitted)-1]
			}
		}
		a.check(policy, 380)
		if a.fromBlock < 100 {
			t.Errorf("only %d came from blocks", a.fromBlock)
		}
	})

	// A bucket leaks while an instance has a block: what it had at hand when others took all that was
	// there is still within the limit of the window that follows, whatever is refunded.
	for _, refunds := range []bool{false, true} {
		t.Run(map[bool]string{false: "a bucket", true: "a bucket and refunds"}[refunds], func(t *testing.T) {
			t.Parallel()
			a := newAutoTrace(t)
			policy := models.Policy{Name: "gcra", Limit: 6000, Window: time.Second, Algorithm: models.AlgorithmGCRA, Block: models.BlockAuto}
			one, other := a.Limiter, a.another()
			key := taggedKey{"k", policyKey{"gcra", "k"}}
			var beside models.Decision
			for i := range 1000 { // until it has just fetched a block
				a.pass(time.Millisecond)
				busy := i > 200 && inHand(one, key) == 0
				if busy && refunds {
					beside = a.hit(other, policy, 110)
				}
				if a.hit(one, policy, 1); busy && inHand(one, key) >= 8 {
					break
				}
			}
			held := inHand(one, key)
			if held < 8 {
				t.Fatalf("%d in hand", held)
			}
			if refunds {
				if err := other.Refund(t.Context(), beside); err != nil {
					t.Fatal(err)
				}
				a.admitted = slices.DeleteFunc(a.admitted, func(c counted) bool { return c == counted{a.now, 110} })
			}
			a.pass(17 * time.Millisecond)
			for range held {
				if d := a.hit(one, policy, 1); !d.Allowed || d.Admission.At == fuzzStart+a.now {
					t.Fatalf("not from the block: %+v", d)
				}
			}
			end := a.now + second
			for _, cost := range []int64{12, 1} { // all that may pass in a window, to the last unit
				for wait := time.Duration(0); a.now+wait.Microseconds() < end; {
					a.pass(wait)
					wait = a.hit(other, policy, cost).RetryAfter
				}
			}
			a.check(policy, 5900)
		})
	}
}

// inHand is how many admissions of a key an instance has at hand.
func inHand(l *Limiter, key taggedKey) int64 {
	l.outbox.mu.Lock()
	defer l.outbox.mu.Unlock()
	if s := l.outbox.keys[key]; s != nil {
		return s.auto.left()
	}
	return 0
}
