package ratelimit

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
)

func requestOf(policy models.Policy, key string, cost int64) request {
	return newRequest(&models.Hit{Policy: policy, Key: key, Cost: cost})
}

// observed lets the table observe what Redis decides just now about one hit.
func observed(t *localTable, req request, v result) {
	sent, generation := t.sending()
	t.observe([]request{req}, []result{v}, v.passes, 1, sent, generation)
}

// refusedBy is what the table decides about a hit by itself, nil if Redis is to be asked.
func refusedBy(t *localTable, req request) []models.Decision {
	results := t.denied([]request{req}, nil)
	if results == nil {
		return nil
	}
	return []models.Decision{req.decision(results[0])}
}

func TestLocalTableRemembersADenial(t *testing.T) {
	policy := models.Policy{Name: "p", Limit: 10, Window: time.Minute}
	req := requestOf(policy, "k", 3)
	const retry = 2500 // milliseconds
	for _, row := range []struct {
		name    string
		after   time.Duration
		request request
		denied  bool
	}{
		{"at once", 0, req, true},
		{"a dearer hit, which waits longer", 0, requestOf(policy, "k", 4), false},
		{"a cheaper hit", 0, requestOf(policy, "k", 2), false},
		{"another key", 0, requestOf(policy, "other", 3), false},
		{"another policy", 0, requestOf(models.Policy{Name: "q", Limit: 10, Window: time.Minute}, "k", 3), false},
		{"a raised limit", 0, requestOf(models.Policy{Name: "p", Limit: 11, Window: time.Minute}, "k", 3), false},
		{"just before the second is over", 999 * time.Millisecond, req, true},
		{"after a second", time.Second, req, false},
		{"when it may pass", retry * time.Millisecond, req, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				local := newLocalTable(0, nil)
				observed(local, req, result{remaining: 2, retry: retry * 1000, more: 1_000_000})
				time.Sleep(row.after)
				ds := refusedBy(local, row.request)
				if denied := ds != nil; denied != row.denied {
					t.Fatalf("denied %v, want %v", denied, row.denied)
				}
				if ds == nil {
					return
				}
				if d := ds[0]; d.Allowed || d.Remaining != 2 || d.RetryAfter != retry*time.Millisecond-row.after || d.ResetAfter != time.Second-row.after {
					t.Errorf("%v later: %+v", row.after, d)
				}
			})
		})
	}
}

// A short denial ends when the hit may pass, counted from before it was asked;
// what clients are answered counts from the reply.
func TestLocalTableNeverDeniesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocalTable(0, nil)
		req := requestOf(models.Policy{Name: "p", Limit: 1, Window: time.Second}, "k", 1)
		sent, generation := local.sending()
		time.Sleep(50 * time.Millisecond) // the way there and back
		local.observe([]request{req}, []result{{retry: 200_000}}, false, 1, sent, generation)
		if ds := refusedBy(local, req); len(ds) != 1 || ds[0].RetryAfter != 200*time.Millisecond {
			t.Errorf("answered %+v, want a refusal for 200 ms from the answer", ds)
		}
		time.Sleep(149 * time.Millisecond)
		if refusedBy(local, req) == nil {
			t.Error("forgotten too early")
		}
		time.Sleep(time.Millisecond)
		if refusedBy(local, req) != nil {
			t.Error("200 ms after it was asked it is still denied")
		}
	})
}

// When the second is over one call asks again, the others go on being refused.
func TestLocalTableOneCallRenewsADenial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocalTable(0, nil)
		req := requestOf(models.Policy{Name: "p", Limit: 1, Window: time.Minute}, "k", 1)
		observed(local, req, result{retry: 60_000_000})
		time.Sleep(time.Second)
		if refusedBy(local, req) != nil {
			t.Error("Redis is not asked again")
		}
		if refusedBy(local, req) == nil {
			t.Error("a second call asks as well")
		}
		time.Sleep(100 * time.Millisecond) // the one who asked got no answer
		if refusedBy(local, req) != nil {
			t.Error("Redis is not asked again after the first call got no reply")
		}
		observed(local, req, result{passes: true})
		if refusedBy(local, req) != nil {
			t.Error("denied although it passed")
		}
	})
}

func TestLocalTableDropsADenialThatWasOnItsWay(t *testing.T) {
	req := requestOf(models.Policy{Name: "p", Limit: 1, Window: time.Minute}, "k", 1)
	for name, invalidate := range map[string]func(*localTable){
		"refund": func(t *localTable) { t.refund(req, 1, 0) },
		"reset":  func(t *localTable) { t.reset(req) },
	} {
		local := newLocalTable(0, nil)
		observed(local, req, result{retry: 60_000_000})
		sent, generation := local.sending()
		invalidate(local)
		if refusedBy(local, req) != nil {
			t.Errorf("%s: still denied", name)
		}
		local.observe([]request{req}, []result{{retry: 60_000_000}}, false, 1, sent, generation)
		if refusedBy(local, req) != nil {
			t.Errorf("%s: denied by an answer from before", name)
		}
		observed(local, req, result{retry: 60_000_000})
		if refusedBy(local, req) == nil {
			t.Errorf("%s: an answer from after is not believed", name)
		}
	}
}

// Without Redis the limiter goes on from what passed through Redis just before.
func TestLocalTableGoesOnFromTheRecentPast(t *testing.T) {
	for _, policy := range []models.Policy{
		{Name: "log", Limit: 10, Window: time.Minute},
		{Name: "gcra", Limit: 100, Window: time.Minute, Algorithm: models.AlgorithmGCRA},
	} {
		synctest.Test(t, func(t *testing.T) {
			local := newLocalTable(0, nil)
			req := requestOf(policy, "k", 2)
			for range 4 {
				observed(local, req, result{passes: true})
			}
			results, counted := local.decide([]request{req}, 2)
			if !counted || results[0].remaining != 0 {
				t.Errorf("%s: %+v, want the last two units", policy.Name, results)
			}
			if results, counted = local.decide([]request{req}, 3); counted || results[0].passes || results[0].retry == 0 {
				t.Errorf("%s: %+v over the limit", policy.Name, results)
			}
			time.Sleep(time.Minute)
			if _, counted = local.decide([]request{req}, 4); !counted {
				t.Errorf("%s: refused a window later", policy.Name)
			}
		})
	}
}

func TestLocalTableIsBounded(t *testing.T) {
	t.Parallel()
	local := newLocalTable(100, nil)
	policy := models.Policy{Name: "p", Limit: 1000, Window: time.Hour}
	for i := range 1000 {
		req := requestOf(policy, fmt.Sprint(i), 1)
		for id := range int64(60) {
			local.decide([]request{req}, id+1)
		}
		total := 0
		if i%100 == 0 {
			for _, s := range local.keys {
				total += len(s.log.entries)
			}
			if total != local.entries {
				t.Fatalf("%d entries are counted as %d", total, local.entries)
			}
		}
		if len(local.keys) > 100 || local.entries > 20*100+60 {
			t.Fatalf("%d keys, %d entries", len(local.keys), local.entries)
		}
	}
	for i := range 1000 {
		observed(local, requestOf(policy, fmt.Sprint("denied", i), 1), result{retry: 60_000_000})
		if len(local.keys) > 100 {
			t.Fatalf("%d keys with denials", len(local.keys))
		}
	}
	last := requestOf(policy, "denied999", 1)
	if refusedBy(local, last) == nil {
		t.Error("the latest denial is forgotten")
	}
}

// Keys that are known do not grow past the bound either.
func TestLocalTableIsBoundedWithoutNewKeys(t *testing.T) {
	policy := models.Policy{Name: "p", Limit: 1000, Window: time.Hour}
	for name, count := range map[string]func(*localTable, request, int64){
		"decided here":     func(t *localTable, req request, id int64) { t.decide([]request{req}, id) },
		"decided by Redis": func(t *localTable, req request, _ int64) { observed(t, req, result{passes: true}) },
		"from a block":     func(t *localTable, req request, id int64) { t.countFromBlock(&req, id, t.now()) },
	} {
		local := newLocalTable(0, nil)
		for id := range int64(100) {
			for key := range minKeys {
				count(local, requestOf(policy, fmt.Sprint(key), 1), id+1)
				if local.entries > entriesPerKey*minKeys {
					t.Fatalf("%s: %d entries after %d of each key", name, local.entries, id)
				}
			}
		}
	}
}

// The most recent keys are the ones kept, more or less.
func TestLocalTableKeepsTheLatest(t *testing.T) {
	local := newLocalTable(100, nil)
	for i := range 5000 {
		local.decide([]request{requestOf(models.Policy{Name: "p", Limit: 1000, Window: time.Hour}, fmt.Sprint(i), 1)}, 1)
	}
	if local.keys[policyKey{"p", "4999"}] == nil {
		t.Error("the latest key is forgotten")
	}
}

func TestLocalTableForgetsIdleKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocalTable(10_000, nil)
		policy := models.Policy{Name: "p", Limit: 10, Window: time.Second}
		for i := range 1000 {
			local.decide([]request{requestOf(policy, fmt.Sprint("old", i), 1)}, 1)
		}
		time.Sleep(2 * time.Second)
		for i := range 500 {
			local.decide([]request{requestOf(policy, fmt.Sprint("new", i), 1)}, 1)
		}
		if n := len(local.keys); n > 600 || n < 500 {
			t.Errorf("%d keys, 500 are in use", n)
		}
		if local.entries > 600 || local.entries < 500 {
			t.Errorf("%d entries", local.entries)
		}
	})
}

// A policy that is read again with another algorithm, and then as it was, has forgotten nothing of
// the window. An algorithm leaves the other one's state alone.
func TestLocalTableKeepsBothAlgorithms(t *testing.T) {
	of := func(algorithm models.Algorithm, limit int64) request {
		return requestOf(models.Policy{Name: "p", Limit: limit, Window: time.Minute, Algorithm: algorithm}, "k", 1)
	}
	log, bucket := of(models.AlgorithmSlidingLog, 20), of(models.AlgorithmGCRA, 100) // both admit at least 10 at once
	for _, row := range []struct {
		name           string
		first, between request
		left           int64
	}{
		{"a log", log, bucket, 15},
		{"a log, a lower limit between", log, of(models.AlgorithmGCRA, 2), 15},
		{"a bucket", bucket, log, 5},
		{"a bucket, a lower limit between", bucket, of(models.AlgorithmSlidingLog, 2), 5},
	} {
		local := newLocalTable(0, func() time.Time { return time.Time{} }) // it stands still
		for range 5 {
			observed(local, row.first, result{passes: true})
		}
		observed(local, row.between, result{passes: true})
		if results, _ := local.decide([]request{row.first}, 0); results[0].remaining != row.left {
			t.Errorf("%s: %d of the units are left, want %d", row.name, results[0].remaining, row.left)
		}
	}
}
