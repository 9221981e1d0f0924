package store_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/store"
)

func TestOldestSessionsEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user := newUser(t, s, "ann@example.com")
		other := session(newUser(t, s, "bob@example.com"), "other")
		insert(t, s, other)
		var all []models.Session
		add := func(most int) {
			x := session(user, fmt.Sprint(len(all)))
			x.CreatedAt = start.Add(time.Duration(len(all)) * time.Second)
			all = append(all, x)
			must(s.InsertSession(t.Context(), x, most))
		}
		expired := session(user, "expired") // takes no place
		expired.CreatedAt, expired.IdleAt = start.Add(time.Hour), start.Add(-time.Second)
		insert(t, s, expired)
		for range 3 {
			add(3)
		}
		head := must(s.Revocations(t.Context(), 0, time.Time{})).Head
		if got := live(t, s, all...); got != "0 1 2" || head != 0 {
			t.Fatalf("live are %q, head %d", got, head)
		}
		add(3)
		wantLog(t, s, head, models.Revocation{SessionHash: "hash-0"})
		if got := live(t, s, all...); got != "1 2 3" {
			t.Fatalf("live are %q", got)
		}
		add(1)
		if got := live(t, s, all...); got != "4" || live(t, s, other) != "other" {
			t.Fatalf("live are %q", got)
		}
		if n := len(must(s.Revocations(t.Context(), head+1, time.Time{})).Entries); n != 3 {
			t.Fatalf("%d entries, want one for each of the 3 ended", n)
		}
	})
}

func TestConcurrentSignInsKeepTheLimit(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		instances := []*store.Store{w.s, w.other}
		for round := range 3 {
			user := newUser(t, instances[0], fmt.Sprintf("u%d@example.com", round))
			head := must(instances[0].Revocations(t.Context(), 0, time.Time{})).Head
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					x := session(user, fmt.Sprint(round, "-", i))
					if _, err := instances[i%2].InsertSession(t.Context(), x, 5); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := must(instances[0].CountSessions(t.Context(), []string{user.ID}, start))[user.ID]; n != 5 {
				t.Fatalf("round %d: %d sessions, want 5", round, n)
			}
			if n := len(must(instances[0].Revocations(t.Context(), head, time.Time{})).Entries); n != 11 {
				t.Fatalf("round %d: %d entries, want 11", round, n)
			}
		}
	})
}
