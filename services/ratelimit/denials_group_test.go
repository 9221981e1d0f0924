package ratelimit

import (
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
)

func TestDenialsOfAGroup(t *testing.T) {
	t.Parallel()
	// Two denials of one group do not keep each other: when both are due they are asked for, however
	// often the group is asked meanwhile.
	t.Run("two do not keep each other", func(t *testing.T) {
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
	})

	// A hit may be answered from memory because another one of its group is refused. That answer is
	// no older than the one it would get alone: another instance may have reset its key.
	t.Run("none is stale", func(t *testing.T) {
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
	})
}
