package ratelimit

import (
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
