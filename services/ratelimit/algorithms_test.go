package ratelimit

import (
	"math/rand/v2"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

const second = int64(1_000_000)

func TestRuleOf(t *testing.T) {
	for _, row := range []struct {
		name      string
		limit     int64
		algorithm models.Algorithm
		burst     int64
		refill    int64
	}{
		{"small limits are logs", 1000, models.AlgorithmAuto, 0, 1000},
		{"large limits are buckets", 1001, models.AlgorithmAuto, 100, 901},
		{"as asked", 300, models.AlgorithmGCRA, 30, 270},
		{"as asked, a log", 300, models.AlgorithmSlidingLog, 0, 300},
		{"a burst of at least one", 5, models.AlgorithmGCRA, 1, 4},
		{"a limit of one comes back", 1, models.AlgorithmGCRA, 1, 1},
		{"the largest", 1_000_000, models.AlgorithmAuto, 100_000, 900_000},
	} {
		r := ruleOf(&models.Policy{Limit: row.limit, Window: time.Minute, Algorithm: row.algorithm})
		if r.burst != row.burst || r.refill() != row.refill || r.window != 60*second {
			t.Errorf("%s: got %+v with refill %d", row.name, r, r.refill())
		}
	}
}

type step struct {
	now, cost int64
	want      result
}

// check runs the steps: each is decided, and counted if it passes.
func check(t *testing.T, name string, r rule, steps []step) {
	t.Helper()
	var l slidingLog
	var b bucket
	for i, s := range steps {
		var got result
		if r.burst == 0 {
			if got = l.look(s.now, r, s.cost); got.passes && s.cost > 0 {
				l.add(got.at, int64(i+1), s.cost)
				got = l.look(s.now, r, 0)
			}
		} else if got = b.look(s.now, r, s.cost); got.passes && s.cost > 0 {
			b.add(got.at, r, s.cost)
			got = b.look(s.now, r, 0)
		}
		s.want.at = max(s.now, s.want.at)
		if got != s.want {
			t.Errorf("%s, step %d: got %+v, want %+v", name, i, got, s.want)
		}
	}
}

func TestSlidingLogSteps(t *testing.T) {
	r := rule{limit: 3, window: 10}
	check(t, "units leave one by one", r, []step{
		{now: 100, cost: 0, want: result{passes: true, remaining: 3}},
		{now: 100, cost: 1, want: result{passes: true, remaining: 2, more: 10}},
		{now: 104, cost: 1, want: result{passes: true, remaining: 1, more: 6}},
		{now: 105, cost: 1, want: result{passes: true, remaining: 0, more: 5}},
		{now: 109, cost: 1, want: result{retry: 1, more: 1}},
		{now: 110, cost: 1, want: result{passes: true, remaining: 0, more: 4}},
		{now: 110, cost: 1, want: result{retry: 4, more: 4}},
		{now: 110, cost: 2, want: result{retry: 5, more: 4}},
		{now: 110, cost: 3, want: result{retry: 10, more: 4}},
		{now: 130, cost: 1, want: result{passes: true, remaining: 2, more: 10}},
	})
	check(t, "costs", r, []step{
		{now: 0, cost: 4, want: result{remaining: 3, retry: 10}},
		{now: 0, cost: 2, want: result{passes: true, remaining: 1, more: 10}},
		{now: 5, cost: 2, want: result{remaining: 1, retry: 5, more: 5}},
		{now: 5, cost: 1, want: result{passes: true, more: 5}},
		{now: 10, cost: 2, want: result{passes: true, more: 5}},
	})
	check(t, "time never goes back", r, []step{
		{now: 100, cost: 3, want: result{passes: true, more: 10}},
		{now: 50, cost: 1, want: result{retry: 10, more: 10, at: 100}},
		{now: 110, cost: 1, want: result{passes: true, remaining: 2, more: 10}},
	})
}

func TestBucketSteps(t *testing.T) {
	r := rule{limit: 6, window: 10, burst: 2} // a unit leaks out in 2.5
	check(t, "burst, then one by one", r, []step{
		{now: 100, cost: 1, want: result{passes: true, remaining: 1, more: 3}},
		{now: 100, cost: 1, want: result{passes: true, remaining: 0, more: 3}},
		{now: 100, cost: 1, want: result{retry: 3, more: 3}},
		{now: 102, cost: 1, want: result{retry: 1, more: 1}},
		{now: 103, cost: 1, want: result{passes: true, remaining: 0, more: 2}},
		{now: 103, cost: 2, want: result{retry: 5, more: 2}},
		{now: 103, cost: 3, want: result{retry: 10, more: 2}},
		{now: 101, cost: 1, want: result{retry: 2, more: 2, at: 103}},
		{now: 200, cost: 0, want: result{passes: true, remaining: 2}},
	})
	check(t, "a limit of one", rule{limit: 1, window: 10, burst: 1}, []step{
		{now: 0, cost: 1, want: result{passes: true, more: 10}},
		{now: 9, cost: 1, want: result{retry: 1, more: 1}},
		{now: 10, cost: 1, want: result{passes: true, more: 10}},
	})
}

func TestSlidingLogRefundsExactlyWhatItAdded(t *testing.T) {
	var l slidingLog
	r := rule{limit: 10, window: 100}
	l.add(1, 7, 3)
	l.add(2, 8, 2)
	l.remove(7)
	l.remove(7)
	l.remove(99)
	if v := l.look(2, r, 1); v.remaining != 8 || l.used != 2 {
		t.Errorf("got %+v, %d used", v, l.used)
	}
}

func TestBucketRefundGivesNoMoreThanIsLeft(t *testing.T) {
	r := rule{limit: 6, window: 10, burst: 2}
	for _, row := range []struct {
		name  string
		after int64
		want  int64 // the level, of another unit taken just before the refund
	}{
		{"at once", 0, 10},
		{"half leaked", 1, 10},
		{"all leaked", 10, 10},
	} {
		var b bucket
		b.add(100, r, 1)
		b.add(100+row.after, r, 1)
		b.remove(100+row.after, r, 1, 100)
		if b.level != row.want {
			t.Errorf("%s: level %d, want %d", row.name, b.level, row.want)
		}
	}
}

// counted is an admission as the naive models keep it.
type counted struct{ at, cost int64 }

// within is what was admitted in the window that ends at now. all is in order.
func within(all []counted, now, window int64) (sum int64) {
	for i := len(all) - 1; i >= 0 && all[i].at > now-window; i-- {
		if all[i].at <= now {
			sum += all[i].cost
		}
	}
	return sum
}

// traces is how many random traces a property is held to.
func traces() int {
	if servicestest.LongProof() {
		return 100_000
	}
	return 8_000
}

func TestSlidingLogIsTheNaiveModel(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	for trace := range traces() {
		r := rule{limit: 1 + rnd.Int64N(20), window: 1 + rnd.Int64N(50)}
		var l slidingLog
		var all []counted
		now := int64(0)
		for i := range int64(50) {
			now += rnd.Int64N(10)
			cost := 1 + rnd.Int64N(min(4, r.limit))
			v := l.look(now, r, cost)
			used := within(all, now, r.window)
			if v.passes != (used+cost <= r.limit) || v.remaining != r.limit-used {
				t.Fatalf("trace %d, step %d: %+v with %d used of %+v", trace, i, v, used, r)
			}
			lowered := l // is only looked at, at the same time
			if v := lowered.look(now, rule{limit: 1 + rnd.Int64N(r.limit), window: r.window}, 1); !v.passes && v.more != v.retry {
				t.Fatalf("trace %d, step %d: with a lower limit the next unit is there after %d or %d", trace, i, v.more, v.retry)
			}
			if !v.passes {
				if within(all, now+v.retry, r.window)+cost > r.limit || within(all, now+v.retry-1, r.window)+cost <= r.limit {
					t.Fatalf("trace %d, step %d: %d is not when cost %d passes", trace, i, v.retry, cost)
				}
				continue
			}
			l.add(v.at, i, cost)
			all = append(all, counted{now, cost})
			if rnd.IntN(10) == 0 { // a refund
				l.remove(i)
				all = all[:len(all)-1]
			}
		}
	}
}

func TestBucketIsTextbookGCRA(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	for trace := range traces() {
		r := rule{limit: 1 + rnd.Int64N(60), window: 1 + rnd.Int64N(100)}
		r.burst = max(1, r.limit/10)
		var b bucket
		var all []counted
		tat := int64(0) // theoretical arrival time, times the refill so that it stays whole
		now := int64(0)
		for i := range 50 {
			now += rnd.Int64N(1 + r.window/4)
			cost := 1 + rnd.Int64N(r.burst)
			next := max(tat, now*r.refill()) + cost*r.window // an emission interval is window/refill
			passes := next-now*r.refill() <= r.burst*r.window

			v := b.look(now, r, cost)
			if v.passes != passes {
				t.Fatalf("trace %d, step %d: %+v, want passes %v by %+v", trace, i, v, passes, r)
			}
			if !passes {
				if !b.look(now+v.retry, r, cost).passes || b.look(now+v.retry-1, r, cost).passes {
					t.Fatalf("trace %d, step %d: %d is not when cost %d passes", trace, i, v.retry, cost)
				}
				continue
			}
			tat = next
			b.add(v.at, r, cost)
			all = append(all, counted{now, cost})
			if sum := within(all, now, r.window); sum > r.limit {
				t.Fatalf("trace %d, step %d: %d in a window, limit %d", trace, i, sum, r.limit)
			}
		}
	}
}

// A refund must not let others pass who would not pass had the refunded hit
// never been there.
func TestBucketRefundNeverAdmitsMore(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(5, 6))
	refunds := 0
	for trace := range 2000 {
		r := rule{limit: 10 + rnd.Int64N(60), window: 1 + rnd.Int64N(100)}
		r.burst = max(1, r.limit/10)
		var b bucket
		var kept []counted
		now := int64(0)
		for range 60 {
			now += rnd.Int64N(1 + r.window/8)
			cost := 1 + rnd.Int64N(r.burst)
			v := b.look(now, r, cost)
			if !v.passes {
				continue
			}
			b.add(v.at, r, cost)
			if rnd.IntN(3) == 0 {
				for range rnd.IntN(3) { // others pass in between
					now += rnd.Int64N(1 + r.window/8)
					if other := b.look(now, r, 1); other.passes {
						b.add(now, r, 1)
						kept = append(kept, counted{now, 1})
					}
				}
				before := b.level
				b.remove(now, r, cost, v.at)
				if b.level < before {
					refunds++
				}
				continue
			}
			kept = append(kept, counted{now, cost})
			if sum := within(kept, now, r.window); sum > r.limit {
				t.Fatalf("trace %d: %d in a window, limit %d", trace, sum, r.limit)
			}
		}
	}
	if refunds < 1000 {
		t.Errorf("only %d refunds gave something back", refunds)
	}
}

// What a reset, or a Redis that was emptied, has given back already, a refund gives back once more.
// No window from then on holds more than the burst above the limit.
func TestBucketRefundAfterAReset(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(7, 8))
	most := int64(0)
	for trace := range 3000 {
		r := rule{limit: 2 + rnd.Int64N(60), window: 1 + rnd.Int64N(100)}
		r.burst = max(1, min(r.limit-1, r.limit/(2+rnd.Int64N(9))))
		var b bucket
		var before, after []counted
		now := int64(0)
		take := func(all []counted) []counted {
			cost := 1 + rnd.Int64N(r.burst)
			v := b.look(now, r, cost)
			if !v.passes {
				return all
			}
			b.add(v.at, r, cost)
			return append(all, counted{now, cost})
		}
		for range 30 {
			now += rnd.Int64N(1 + r.window/8)
			before = take(before)
		}
		b = bucket{}
		for range 100 {
			now += rnd.Int64N(2 + r.window/64)
			if n := len(before); n > 0 && rnd.IntN(2) == 0 {
				b.remove(now, r, before[n-1].cost, before[n-1].at)
				before = before[:n-1]
			}
			after = take(after)
			sum := within(after, now, r.window)
			if most = max(most, sum-r.limit); sum > r.limit+r.burst {
				t.Fatalf("trace %d: %d in a window by %+v", trace, sum, r)
			}
		}
	}
	if most <= 0 {
		t.Error("no refund gave anything back")
	}
}
