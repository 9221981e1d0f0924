package session_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// Data that one instance saves, and another reads.
func TestValues(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.one(t), w.one(t)

	t.Run("are read elsewhere at once although the session is kept in memory", func(t *testing.T) {
		token, s := signIn(t, a, w.signUp(t))
		for n := range 5 {
			warmForLong(t, b, token)
			s = save(t, a, s, fmt.Sprint(n))
			readsInTime(t, b, token, fmt.Sprint(n))
		}
		if n := a.db.notes.Load(); n != 0 {
			t.Errorf("%d entries in the log, which is spared while Redis has the data", n)
		}
	})

	t.Run("are not overwritten by a read that was overtaken", func(t *testing.T) {
		token, s := signIn(t, a, w.signUp(t))
		w.server.Do("FLUSHALL")
		waitForRead, goOn := b.pauseNextRead()
		filled, failed := make(chan models.Session, 1), make(chan error, 1)
		go func() {
			late, err := b.Get(t.Context(), token)
			if err != nil {
				failed <- err
				return
			}
			filled <- *late
		}()
		waitForRead(t)
		save(t, a, s, "new")
		goOn()
		select {
		case late := <-filled:
			if late.Version != 0 {
				t.Fatalf("it read %+v", late)
			}
		case err := <-failed:
			t.Fatal(err)
		}
		if copied := w.server.Do("GET", "test:session:"+s.Hash); !strings.HasPrefix(copied, "1 ") {
			t.Errorf("Redis holds %s", copied)
		}
		readsInTime(t, b, token, "new")
	})

	t.Run("are read in time when the instance that saves is cut off from Redis", func(t *testing.T) {
		proxy := servicestest.NewProxy(t, w.server.Addr)
		cut := w.instance(t, redistest.Impatient(t, proxy.Addr), session.Options{})
		token, s := signIn(t, cut, w.signUp(t))
		warmForLong(t, b, token)
		proxy.Cut()
		for n := range 3 {
			s = save(t, cut, s, fmt.Sprint(n))
			if got := mustGet(t, cut, token); string(got.Data) != fmt.Sprint(n) {
				t.Errorf("it reads %q itself", got.Data)
			}
			readsInTime(t, b, token, fmt.Sprint(n))
		}
		proxy.Restore()
		servicestest.Eventually(t, cut.redis.Available, "Redis is not used again")
		for _, i := range []instance{cut, b} {
			if got := mustGet(t, i, token); string(got.Data) != "2" {
				t.Errorf("afterwards %q is read", got.Data)
			}
		}
	})
}

// Many writers of one session, all of whom have read its first version: one is stored, the others
// are told that the session has changed. Each tries again until its byte is stored, once.
func TestConcurrentWriters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	all := []instance{w.one(t), w.one(t)}
	token, s := signIn(t, all[0], w.signUp(t))
	const writers = 20
	stale := make([]int, writers)
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			mine := s
			for {
				now, err := all[n%2].SaveData(t.Context(), mine, append(bytes.Clone(mine.Data), byte(n)))
				if err == nil {
					return
				}
				if !errors.Is(err, models.ErrStale) {
					t.Errorf("writer %d: %v", n, err)
					return
				}
				stale[n]++
				mine = now
			}
		})
	}
	wg.Wait()
	if first := writers - len(slices.DeleteFunc(stale, func(times int) bool { return times > 0 })); first != writers-1 {
		t.Errorf("%d of %d writers had to try again, want all but one", first, writers)
	}
	row, err := w.store.Session(t.Context(), s.Hash, time.Now())
	stored := slices.Sorted(slices.Values(row.Data))
	if err != nil || len(slices.Compact(stored)) != writers || len(row.Data) != writers || row.Version != s.Version+writers {
		t.Errorf("%d writers: the row has %v, version %d, %v", writers, row.Data, row.Version, err)
	}
	for _, i := range all {
		readsInTime(t, i, token, string(row.Data))
	}
}
