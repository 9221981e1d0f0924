package ratelimit

import (
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
)

// The smallest and the dearest cost that were refused are each answered with their own wait. What
// costs still more asks Redis, or is answered with the longest wait there is.
func TestLocalTableTellsADearerHitItsOwnWait(t *testing.T) {
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
}

// A flood asks at most once a second for each of two costs, whatever its costs are. It never asks
// when a denial is refused for the cost of another.
func TestLocalTableAsksOnceASecond(t *testing.T) {
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
}

// While a dearer hit asks Redis no hit is refused past the moment at which the
// smallest may pass.
func TestLocalTableClaimEndsWithTheSmallest(t *testing.T) {
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
}

// Two denials of one group do not keep each other: when both are due they are
// asked for, however often the group is asked meanwhile.
func TestLocalTableDenialsOfAGroupEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		local := newLocalTable(0, nil)
		requests := []request{requestOf(models.Policy{Name: "p", Limit: 10, Window: time.Minute}, "k", 1), requestOf(models.Policy{Name: "q", Limit: 10, Window: time.Minute}, "k", 1)}
		observed(local, requests[0], result{retry: 60_000_000})
		time.Sleep(50 * time.Millisecond)
		observed(local, requests[1], result{retry: 30_000_000})
		for i := range 1100 {
			vs := local.denied(requests, nil)
			if vs == nil {
				if asked := i + 50; asked < 1045 || asked > 1055 {
					t.Errorf("asked for again after %d ms", asked)
				}
				return
			}
			for j, left := range []int64{59_950_000, 30_000_000} {
				want := left - int64(i)*1000
				if j == 0 && i >= 950 { // it is due
					want = 0
				}
				if vs[j].passes != (want == 0) || vs[j].retry != want {
					t.Fatalf("after %d ms: %+v, want %d to wait", i, vs[j], want)
				}
			}
			time.Sleep(time.Millisecond)
		}
		t.Error("never asked for again")
	})
}

// A dearer hit asked for in place of the smallest, which has lapsed, does not lend
// it its own wait.
func TestLocalTableTellsTheSmallestItsOwnWait(t *testing.T) {
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
}

// A hit may be answered from memory because another one of its group is refused. That answer is no
// older than the one it would get alone: another instance may have reset its key.
func TestLocalTableTellsAGroupNothingStale(t *testing.T) {
	policies := []models.Policy{{Name: "p", Limit: 10, Window: time.Minute}, {Name: "q", Limit: 10, Window: time.Minute}}
	const s = int64(time.Second / time.Microsecond)
	for _, row := range []struct {
		name  string
		cost  int64 // of the second hit, whose cost 3 was refused
		after time.Duration
		want  int64 // the wait that it is answered; 0: none
	}{
		{"at once", 3, 0, 30 * s},
		{"within the second", 3, 900 * time.Millisecond, 29_100_000},
		{"lapsed", 3, time.Second, 0},
		{"long lapsed", 3, 10 * time.Second, 0},
		{"a cheaper one", 2, 0, 0},
		{"a dearer one, refused all the same", 4, 900 * time.Millisecond, 60 * s},
		{"a dearer one, lapsed", 4, time.Second, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			local := newLocalTable(0, nil)
			requests := []request{requestOf(policies[0], "k", 1), requestOf(policies[1], "k", row.cost)}
			observed(local, requestOf(policies[1], "k", 3), result{retry: 30 * s})
			time.Sleep(row.after)
			observed(local, requests[0], result{retry: 60 * s}) // refused alone, again and again
			vs := local.denied(requests, nil)
			if len(vs) != 2 || vs[0].retry != 60*s || vs[1].retry != row.want || vs[1].passes != (row.want == 0) {
				t.Errorf("%s: %+v, want %d", row.name, vs, row.want)
			}
		})
	}
}
