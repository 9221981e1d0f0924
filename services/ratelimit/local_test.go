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

func TestLocalTable(t *testing.T) {
	t.Parallel()
	// Without Redis the limiter goes on from what passed through Redis just before.
	t.Run("it goes on from the recent past", func(t *testing.T) {
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
	})

	// A policy that is read again with another algorithm, and then as it was, has forgotten nothing
	// of the window. An algorithm leaves the other one's state alone.
	t.Run("an algorithm leaves the other one alone", func(t *testing.T) {
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
	})

	t.Run("idle keys are forgotten", func(t *testing.T) {
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
	})

	t.Run("it is bounded, and keeps the latest keys", func(t *testing.T) {
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
		if local.keys[policyKey{"p", "999"}] == nil {
			t.Error("the latest key is forgotten")
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
	})

	// Keys that are known do not grow past the bound either.
	t.Run("keys that are known do not grow past the bound", func(t *testing.T) {
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
	})
}
