package store_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/store"
)

// Many transactions at once, in two instances, while followers read the log by
// number: numbers become visible in order, so none is ever missed.
func TestTailMissesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		const writers, each = 8, 8
		instances := []*store.Store{w.s, w.other}
		users := make([]models.User, writers)
		for i := range users {
			users[i] = newUser(t, instances[0], fmt.Sprintf("u%d@example.com", i))
		}
		total := int64(writers * each)

		var followers sync.WaitGroup
		var written atomic.Bool
		for _, s := range instances {
			followers.Go(func() {
				offset := int64(0)
				for last := false; !last; {
					last = written.Load()
					read, err := s.Revocations(t.Context(), offset, time.Time{})
					if err != nil {
						t.Error(err)
						return
					}
					if read.Head != offset+int64(len(read.Entries)) {
						t.Errorf("after %d came %d entries, but the head is %d", offset, len(read.Entries), read.Head)
						return
					}
					for i, entry := range read.Entries {
						if entry.Seq != offset+int64(i)+1 {
							t.Errorf("after %d came %d", offset+int64(i), entry.Seq)
							return
						}
					}
					offset = read.Head
				}
				if offset != total {
					t.Errorf("the follower read %d entries, want %d", offset, total)
				}
			})
		}
		var writing sync.WaitGroup
		for i, user := range users {
			writing.Go(func() {
				s := instances[i%2]
				for n := range each {
					var err error
					switch (n + i) % 4 {
					case 0:
						err = s.EndSessions(t.Context(), models.Ending{UserID: user.ID})
					case 1:
						_, err = s.UpdateUser(t.Context(), user.ID, models.UserPatch{PasswordHash: ptr(fmt.Sprint(n))})
					case 2:
						x := session(models.User{}, fmt.Sprint(i, "-", n))
						if _, err = s.InsertSession(t.Context(), x, 0); err == nil {
							err = s.EndSessions(t.Context(), models.Ending{Hash: x.Hash})
						}
					case 3:
						if i == 0 {
							err = s.EndSessions(t.Context(), models.Ending{Everybody: true})
						} else {
							err = s.EndSessions(t.Context(), models.Ending{UserID: user.ID})
						}
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		writing.Wait()
		written.Store(true)
		followers.Wait()
	})
}

func TestRevocationsSince(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		now := start
		s := openWith(t, store.Options{URL: w.url, Now: func() time.Time { return now }})
		if read := must(s.Revocations(t.Context(), 0, start)); read.Head != 0 || len(read.Entries) != 0 {
			t.Fatalf("an empty log reads as %+v", read)
		}
		user := newUser(t, s, "ann@example.com")
		// The third was written by an instance whose clock is behind.
		for _, minute := range []int{0, 10, 5, 20} {
			now = start.Add(time.Duration(minute) * time.Minute)
			check(t, s.EndSessions(t.Context(), models.Ending{UserID: user.ID}))
		}
		for _, row := range []struct{ minute, first int }{{0, 1}, {1, 2}, {10, 2}, {11, 4}, {20, 4}, {21, 0}} {
			read := must(s.Revocations(t.Context(), 0, start.Add(time.Duration(row.minute)*time.Minute)))
			first := 0
			if len(read.Entries) > 0 {
				first = int(read.Entries[0].Seq)
			}
			if first != row.first || read.Head != 4 || (first > 0 && len(read.Entries) != 5-first) {
				t.Errorf("since minute %d: %+v, want everything from %d", row.minute, read, row.first)
			}
		}
	})
}

func TestCleanUp(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		now := start.Add(-25 * time.Hour)
		s := openWith(t, store.Options{URL: w.url, Now: func() time.Time { return now }})
		user, gone := newUser(t, s, "ann@example.com"), newUser(t, s, "gone@example.com")
		check(t, s.EndSessions(t.Context(), models.Ending{UserID: user.ID})) // an old entry
		now = start
		check(t, s.EndSessions(t.Context(), models.Ending{UserID: user.ID}))
		check(t, s.RememberNetwork(t.Context(), user.ID, "192.0.2.0/24", start.Add(-31*24*time.Hour)))
		check(t, s.RememberNetwork(t.Context(), user.ID, "198.51.100.0/24", start.Add(-29*24*time.Hour)))

		alive, nobody := session(user, "alive"), session(models.User{}, "nobody")
		alive.Epoch = 3
		insert(t, s, alive, nobody)
		for i := range 3 {
			idle, ended := session(user, fmt.Sprint("idle", i)), session(gone, fmt.Sprint("ended", i))
			idle.Epoch, idle.IdleAt = 3, start
			insert(t, s, idle, ended)
		}
		check(t, s.EndSessions(t.Context(), models.Ending{UserID: gone.ID}))

		if counts := cleanUpSessions(t, s, 4); fmt.Sprint(counts) != "[4 2]" {
			t.Errorf("deleted %v", counts)
		}
		if n := must(s.CleanUp(t.Context(), start, 4)); n != 2 { // an entry and a network
			t.Errorf("deleted %d", n)
		}
		if got := live(t, s, alive, nobody); got != "alive nobody" {
			t.Errorf("live are %q", got)
		}
		read := must(s.Revocations(t.Context(), 0, time.Time{}))
		if read.Head != 3 || len(read.Entries) != 2 || read.Entries[0].Seq != 2 {
			t.Errorf("log is %+v", read)
		}
		if must(s.KnownNetwork(t.Context(), user.Email, "192.0.2.0/24", time.Unix(0, 0))) {
			t.Error("an old network is still known")
		}

		// Everything old: the log is empty, the head stays.
		must(s.CleanUp(t.Context(), start.Add(48*time.Hour), 100))
		if read := must(s.Revocations(t.Context(), 0, time.Time{})); read.Head != 3 || len(read.Entries) != 0 {
			t.Errorf("log is %+v", read)
		}
		check(t, s.EndSessions(t.Context(), models.Ending{UserID: user.ID}))
		wantLog(t, s, 3, models.Revocation{UserID: user.ID})
	})
}

// cleanUpSessions returns how many sessions each batch deleted.
func cleanUpSessions(t *testing.T, s *store.Store, limit int) (counts []int) {
	t.Helper()
	for after := ""; ; {
		next, removed, err := s.CleanUpSessions(t.Context(), start, after, limit)
		check(t, err)
		counts = append(counts, removed)
		if next == "" {
			return counts
		}
		after = next
	}
}

// A batch looks at a part of the sessions, however many live: looking at all of
// a million takes longer than a query may, and nothing was ever deleted.
func TestCleanUpSessionsLooksAtAPart(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user := newUser(t, s, "ann@example.com")
		const all, limit = 65, 2
		var alive []models.Session
		for i := range all {
			x := session(user, fmt.Sprintf("%03d", i))
			if i%16 == 0 {
				x.IdleAt = start
			} else {
				alive = append(alive, x)
			}
			insert(t, s, x)
		}
		// 0 and 16, which is the limit; then 32, 48 and 64, each in a part of 20 rows.
		if counts := cleanUpSessions(t, s, limit); fmt.Sprint(counts) != "[2 1 1 1]" {
			t.Errorf("deleted %v", counts)
		}
		if got := must(s.SessionsOf(t.Context(), user.ID, start)); len(got) != len(alive) {
			t.Errorf("%d are left of %d that live", len(got), len(alive))
		}
	})
}
