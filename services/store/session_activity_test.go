package store_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/store"
)

// Many sessions are brought up to date in one write, and only live ones.
func TestTouchSessions(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user, other := newUser(t, s, "ann@example.com"), newUser(t, s, "bob@example.com")
		used, fresh, idle, ended := session(user, "used"), session(user, "fresh"), session(user, "idle"), session(other, "ended")
		late := session(user, "late") // used before its idle timeout, which could not be written, and past it
		fresh.LastSeen, fresh.IdleAt = start.Add(10*time.Minute), start.Add(40*time.Minute)
		idle.IdleAt, late.IdleAt = start, start.Add(time.Second)
		insert(t, s, used, fresh, idle, ended, late)
		check(t, s.EndSessions(t.Context(), models.Ending{UserID: other.ID}))

		at := start.Add(time.Minute)
		var seen []models.Activity
		for _, hash := range []string{used.Hash, fresh.Hash, idle.Hash, ended.Hash, "none"} {
			seen = append(seen, models.Activity{Hash: hash, Since: at, LastSeen: at, IdleAt: at.Add(30 * time.Minute)})
		}
		seen = append(seen, models.Activity{Hash: late.Hash, Since: start, LastSeen: at, IdleAt: at.Add(30 * time.Minute)})
		written := must(s.TouchSessions(t.Context(), seen))
		slices.Sort(written)
		if want := []string{fresh.Hash, late.Hash, used.Hash}; !slices.Equal(written, want) {
			t.Errorf("written %q, want %q", written, want)
		}
		if x := must(s.Session(t.Context(), used.Hash, at)); !x.LastSeen.Equal(at) || !x.IdleAt.Equal(at.Add(30*time.Minute)) {
			t.Errorf("used is %+v", x)
		}
		if x := must(s.Session(t.Context(), fresh.Hash, at)); !x.LastSeen.Equal(fresh.LastSeen) || !x.IdleAt.Equal(fresh.IdleAt) {
			t.Errorf("times went back: %+v", x)
		}
	})
}

// Instances that write the same sessions at once, in different order, while some
// of these end, never wait for each other in a circle.
func TestTouchSessionsAtTheSameTime(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		instances := []*store.Store{w.s, w.other}
		user := newUser(t, instances[0], "ann@example.com")
		const all = 30
		var seen []models.Activity
		for i := range all {
			x := session(user, fmt.Sprint(i))
			insert(t, instances[0], x)
			seen = append(seen, models.Activity{Hash: x.Hash, Since: start, LastSeen: start, IdleAt: x.IdleAt})
		}
		var wg sync.WaitGroup
		for _, s := range instances {
			mine := slices.Clone(seen)
			slices.Reverse(seen)
			wg.Go(func() {
				for range 10 {
					if _, err := s.TouchSessions(t.Context(), mine); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			for _, hash := range []string{"hash-7", "hash-25", "hash-3"} {
				if err := instances[0].EndSessions(t.Context(), models.Ending{Hash: hash}); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Wait()
		if written := must(instances[1].TouchSessions(t.Context(), seen)); len(written) != all-3 {
			t.Errorf("%d sessions are written afterwards, want the %d that live", len(written), all-3)
		}
	})
}

// A single session is waited for: its caller must know whether it is live.
func TestTouchOneSessionAtTheSameTime(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		x := session(newUser(t, s, "ann@example.com"), "used")
		insert(t, s, x)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 5 {
					if err := touch(t, s, x.Hash, start, x.IdleAt); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	})
}
