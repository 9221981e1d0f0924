package ratelimit

import (
	"math/rand/v2"
	"testing"
)

func TestSlidingLog(t *testing.T) {
	t.Parallel()
	t.Run("units leave one by one, exactly a window later", func(t *testing.T) {
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
	})

	t.Run("a refund takes back exactly what its call added", func(t *testing.T) {
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
	})

	t.Run("it decides as a naive model does", func(t *testing.T) {
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
	})
}
