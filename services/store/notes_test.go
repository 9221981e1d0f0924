package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

func TestNoteChangeEndsNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		x := session(newUser(t, s, "ann@example.com"), "x")
		insert(t, s, x)
		check(t, s.NoteChange(t.Context(), x.Hash))
		check(t, s.NoteChange(t.Context(), ""))
		wantLog(t, s, 0, models.Revocation{SessionHash: x.Hash}, models.Revocation{Everybody: true})
		if live(t, s, x) != "x" {
			t.Error("the session has ended")
		}
	})
}

// Each write to the log has a nonce of its own; the head keeps the last one when
// the entries have been cleaned up.
func TestLogMarks(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		if read := must(s.Revocations(t.Context(), 0, time.Time{})); read.Head != 0 || read.Nonce != 0 {
			t.Errorf("an empty log reads as %+v", read)
		}
		seen := map[int64]bool{0: true}
		for range 3 {
			check(t, s.NoteChange(t.Context(), ""))
			read := must(s.Revocations(t.Context(), 0, time.Time{}))
			last := read.Entries[len(read.Entries)-1]
			if seen[read.Nonce] || last.Nonce != read.Nonce {
				t.Errorf("nonce %d again, or entry %+v has another one", read.Nonce, last)
			}
			seen[read.Nonce] = true
		}
		before := must(s.Revocations(t.Context(), 0, time.Time{})).Nonce
		must(s.CleanUp(t.Context(), time.Now().Add(48*time.Hour), 100))
		if read := must(s.Revocations(t.Context(), 0, time.Time{})); read.Nonce != before || len(read.Entries) != 0 {
			t.Errorf("after cleaning up: %+v", read)
		}
	})
}

// PostgreSQL notifies the instances that listen.
func TestWatchRevocations(t *testing.T) {
	s := open(t, servicestest.StartPostgres(t))
	ctx, stop := context.WithCancel(t.Context())
	notified, ended := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(ended)
		s.WatchRevocations(ctx, func() { notified <- struct{}{} })
	}()
	wait := func(what string) {
		t.Helper()
		servicestest.Eventually(t, func() bool {
			select {
			case <-notified:
				return true
			default:
				return false
			}
		}, "not notified: "+what)
	}
	wait("that it listens")
	for range 3 {
		check(t, s.NoteChange(t.Context(), ""))
		wait("of an entry")
	}
	stop()
	<-ended
}

// Ending all sessions of a user writes the same few rows however many there are.
func TestEndUserSessionsIsConstant(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user := newUser(t, s, "ann@example.com")
		const many = 100
		insertMany(t, w.raw, user, many)
		if n := must(s.CountSessions(t.Context(), []string{user.ID}, start))[user.ID]; n != many {
			t.Fatalf("%d sessions", n)
		}
		rows := func() (sum string) {
			check(t, w.raw.QueryRow(`SELECT COUNT(*) || '/' || SUM(epoch) || '/' || SUM(version) || '/' || SUM(era) FROM sessions`).Scan(&sum))
			return sum
		}
		before := rows()
		check(t, s.EndSessions(t.Context(), models.Ending{UserID: user.ID}))
		if after := rows(); after != before {
			t.Errorf("session rows were written: %s became %s", before, after)
		}
		wantLog(t, s, 0, models.Revocation{UserID: user.ID})
		if n := must(s.CountSessions(t.Context(), []string{user.ID}, start))[user.ID]; n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

func insertMany(t *testing.T, raw *sql.DB, user models.User, n int) {
	t.Helper()
	idle, end := start.Add(time.Hour).UnixMicro(), start.Add(2*time.Hour).UnixMicro()
	_, err := raw.Exec(fmt.Sprintf(`WITH RECURSIVE many(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM many WHERE i < %d)
		INSERT INTO sessions (hash, id, user_id, epoch, data, version, created_at, last_seen, idle_at, expires_at, user_agent, ip, era)
		SELECT 'hash-many-' || i, 'id-' || i, %s, 1, NULL, 0, %d, %d, %d, %d, '', '', 1 FROM many`,
		n, user.ID, start.UnixMicro(), start.UnixMicro(), idle, end))
	check(t, err)
}
