package ratelimit

import (
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
)

func TestDenials(t *testing.T) {
	t.Parallel()
	t.Run("a denial is believed for a second, for its cost", func(t *testing.T) {
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
	})

	// A short denial ends when the hit may pass, counted from before it was asked; what clients are
	// answered counts from the reply.
	t.Run("nothing is denied when it may pass", func(t *testing.T) {
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
	})

	// When the second is over one call asks again, the others go on being refused.
	t.Run("one call asks again, and the others are refused", func(t *testing.T) {
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
	})

	t.Run("a refund or reset drops one that is on its way", func(t *testing.T) {
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
	})

	// The smallest and the dearest cost that were refused are each answered with their own wait.
	// What costs still more asks Redis, or is answered with the longest wait there is.
	t.Run("each cost has its own wait", func(t *testing.T) {
		policy := models.Policy{Name: "p", Limit: 10, Window: time.Minute}
		usesBlocks := policy
		usesBlocks.Block = 5
		const s = int64(time.Second / time.Microsecond)
		type refused struct{ cost, retry int64 }
		for _, row := range []struct {
			name     string
			policy   models.Policy
			refusals []refused
			want     map[int64]int64 // the wait that a cost is answered; 0: Redis is asked
		}{
			{"one", policy, []refused{{3, 7 * s}}, map[int64]int64{2: 0, 3: 7 * s, 4: 0}},
			{"a dearer one", policy, []refused{{3, 7 * s}, {5, 9 * s}}, map[int64]int64{2: 0, 3: 7 * s, 4: 9 * s, 5: 9 * s, 6: 60 * s}},
			{"a cheaper one", policy, []refused{{5, 9 * s}, {3, 7 * s}}, map[int64]int64{2: 0, 3: 7 * s, 4: 9 * s, 5: 9 * s, 6: 60 * s}},
			{"the dearest of three", policy, []refused{{3, 7 * s}, {5, 9 * s}, {8, 11 * s}}, map[int64]int64{3: 7 * s, 4: 11 * s, 8: 11 * s, 9: 60 * s}},
			{"the smallest later", policy, []refused{{5, 9 * s}, {3, 12 * s}}, map[int64]int64{3: 12 * s, 5: 12 * s}},
			{"leases wait longer", usesBlocks, []refused{{3, 7 * s}, {5, 9 * s}}, map[int64]int64{6: 62 * s}},
		} {
			synctest.Test(t, func(t *testing.T) {
				local := newLocalTable(0, nil)
				for _, r := range row.refusals {
					observed(local, requestOf(row.policy, "k", r.cost), result{retry: r.retry})
				}
				for cost, want := range row.want {
					req := requestOf(row.policy, "k", cost)
					ds := refusedBy(local, req)
					if (ds != nil) != (want > 0) || want > 0 && ds[0].RetryAfter != time.Duration(want)*time.Microsecond {
						t.Errorf("%s: cost %d is answered %+v, want %d", row.name, cost, ds, want)
					}
				}
				observed(local, requestOf(row.policy, "k", row.refusals[0].cost), result{passes: true})
				dear := requestOf(row.policy, "k", 9)
				if refusedBy(local, dear) != nil && row.refusals[0].cost <= 3 {
					t.Errorf("%s: denied although a cost as high as the smallest passed", row.name)
				}
			})
		}
	})

	// A flood asks at most once a second for each of two costs, whatever its costs are. It never
	// asks when a denial is refused for the cost of another.
	t.Run("a flood asks once a second for each of two costs", func(t *testing.T) {
		policy := models.Policy{Name: "p", Limit: 10, Window: time.Minute}
		for _, row := range []struct {
			name  string
			costs []int64
			most  int // questions in 10 s, after the first refusal
		}{
			{"all alike", []int64{1}, 10},
			{"dearer ones only", []int64{3}, 11},
			{"two", []int64{1, 3}, 21},
			{"two dearer ones", []int64{3, 2}, 22},
			{"all", []int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 25},
			{"ever dearer", []int64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 25},
		} {
			synctest.Test(t, func(t *testing.T) {
				local := newLocalTable(0, nil)
				first := requestOf(policy, "k", 1)
				observed(local, first, result{retry: 60_000_000})
				asked := 0
				for i := range 2500 {
					time.Sleep(4 * time.Millisecond)
					req := requestOf(policy, "k", row.costs[i%len(row.costs)])
					if refusedBy(local, req) != nil {
						continue
					}
					asked++
					sent, generation := local.sending()
					for range 5 { // others, until the answer is there
						time.Sleep(100 * time.Microsecond)
						if refusedBy(local, req) == nil {
							asked++
						}
					}
					local.observe([]request{req}, []result{{retry: 50_000_000 + req.cost}}, false, 1, sent, generation)
				}
				if asked > row.most || asked < 9 {
					t.Errorf("%s: %d questions in 10 s, want 9 to %d", row.name, asked, row.most)
				}
			})
		}
	})

	// While a dearer hit asks Redis no hit is refused past the moment at which the smallest may
	// pass.
	t.Run("while one asks, the smallest passes when it may", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			local := newLocalTable(0, nil)
			policy := models.Policy{Name: "p", Limit: 10, Window: time.Minute}
			dear := requestOf(policy, "k", 3)
			observed(local, requestOf(policy, "k", 1), result{retry: 20_000})
			if refusedBy(local, dear) != nil {
				t.Fatal("Redis is not asked about the dearer one")
			}
			time.Sleep(19 * time.Millisecond)
			if refusedBy(local, dear) == nil {
				t.Fatal("two ask")
			}
			time.Sleep(time.Millisecond)
			if refusedBy(local, dear) != nil {
				t.Error("still refused when all may pass")
			}
		})
	})

	// A dearer hit asked for in place of the smallest, which has lapsed, does not lend it its own
	// wait.
	t.Run("a dearer hit does not lend its wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			local := newLocalTable(0, nil)
			policy := models.Policy{Name: "p", Limit: 10, Window: time.Minute}
			cheap, dear, dearest := requestOf(policy, "k", 1), requestOf(policy, "k", 3), requestOf(policy, "k", 5)
			observed(local, cheap, result{retry: 10_000_000})
			time.Sleep(500 * time.Millisecond)
			observed(local, dearest, result{retry: 30_000_000})
			time.Sleep(600 * time.Millisecond)
			if refusedBy(local, dear) != nil {
				t.Fatal("Redis is not asked")
			}
			observed(local, dear, result{retry: 20_000_000})
			ds := refusedBy(local, cheap)
			if want := 8900 * time.Millisecond; len(ds) != 1 || ds[0].RetryAfter != want {
				t.Errorf("answered %+v, want %v to wait", ds, want)
			}
		})
	})
}
