package ratelimit

import (
	"math/rand/v2"
	"testing"
)

func TestBucket(t *testing.T) {
	t.Parallel()
	t.Run("a burst passes, then units one by one", func(t *testing.T) {
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
	})

	t.Run("it decides as the textbook does", func(t *testing.T) {
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
	})

	t.Run("a refund gives back no more than is left", func(t *testing.T) {
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
	})

	// A refund must not let others pass who would not pass had the refunded hit never been there.
	t.Run("a refund lets nobody pass who would not have", func(t *testing.T) {
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
	})

	// What a reset, or a Redis that was emptied, has given back already, a refund gives back once
	// more. No window from then on holds more than the burst above the limit.
	t.Run("refunds after a reset give a burst more at most", func(t *testing.T) {
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
	})
}
