package session_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// Values saved by an instance that is cut off from Redis are seen by the others in
// time, although Redis, which they reach, still has the old ones; and afterwards.
func TestSessionValuesSavedWithoutRedis(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	path := filepath.Join(t.TempDir(), "sessions.db")
	a := startInstance(t, path, redistest.New(t, proxy.Addr), session.Options{})
	b := startInstance(t, path, redistest.New(t, server.Addr), session.Options{})
	token, s := signIn(t, a, signUp(t, a.db, "ann@example.com"))
	warmForLong(t, b, token)
	proxy.Cut()
	for n := range 3 {
		text := fmt.Sprint("new ", n)
		saved, err := a.SaveData(t.Context(), s, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		s = saved
		if got := mustGet(t, a, token); string(got.Data) != text {
			t.Errorf("a reads %q", got.Data)
		}
		servicestest.Within(t, revokeBound, func() bool { return string(mustGet(t, b, token).Data) == text }, "b reads old values")
	}
	proxy.Restore()
	servicestest.Within(t, 3*time.Second, func() bool { return a.redis.Available() }, "Redis is not used again")
	for name, i := range map[string]instance{"a": a, "b": b} {
		if got := mustGet(t, i, token); string(got.Data) != "new 2" {
			t.Errorf("%s reads %q", name, got.Data)
		}
	}
}

// With Redis there, the log is spared: it carries what ends sessions, not values.
func TestSessionValuesDoNotFillTheLog(t *testing.T) {
	i := startInstances(t, 1, servicestest.StartRedis(t), session.Options{})[0]
	_, s := signIn(t, i, signUp(t, i.db, "ann@example.com"))
	for range 10 {
		saved, err := i.SaveData(t.Context(), s, []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		s = saved
	}
	if n := i.db.notes.Load(); n != 0 {
		t.Errorf("%d entries", n)
	}
}

// Many writers of one session: each write is stored, or fails with models.ErrStale.
func TestSessionConcurrentWriters(t *testing.T) {
	all := startInstances(t, 2, servicestest.StartRedis(t), session.Options{})
	token, s := signIn(t, all[0], signUp(t, all[0].db, "ann@example.com"))
	const writers, tries = 100, 3
	var kept atomic.Int64
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			i, mine := all[n%2], s
			for range tries {
				now, err := i.SaveData(t.Context(), mine, append(bytes.Clone(mine.Data), byte(n)))
				switch {
				case err == nil:
					kept.Add(1)
					return
				case !errors.Is(err, models.ErrStale):
					t.Logf("writer %d does not know: %v", n, err)
					return
				}
				mine = now
			}
		})
	}
	wg.Wait()
	row, err := all[0].db.Store.Session(t.Context(), s.Hash, time.Now())
	if err != nil || len(row.Data) < int(kept.Load()) || int(row.Version-s.Version) != len(row.Data) || kept.Load() == 0 {
		t.Errorf("%d kept of %d; the row has %d, version %d, %v", kept.Load(), writers, len(row.Data), row.Version, err)
	}
	for _, i := range all {
		servicestest.Within(t, revokeBound, func() bool { return bytes.Equal(mustGet(t, i, token).Data, row.Data) }, "an instance reads old values")
	}
}
