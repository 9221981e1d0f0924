package session_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
	"gatehouse/services/store"
)

// A valid session is not refused while Redis is frozen, killed, emptied or restarted.
func TestSurvivesRedis(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.instance(t, redistest.Impatient(t, w.server.Addr), session.Options{}), w.instance(t, redistest.Impatient(t, w.server.Addr), session.Options{})
	token, s := signIn(t, a, w.signUp(t))
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"up", func() {}},
		{"emptied", func() { w.server.Do("FLUSHALL") }},
		{"frozen", w.server.Freeze},
		{"thawed", w.server.Thaw},
		{"killed", w.server.Kill},
		{"restarted", w.server.Start},
	} {
		step.do()
		for range 20 {
			for _, i := range []instance{a, b} {
				if got := mustGet(t, i, token); got.ID != s.ID {
					t.Fatalf("%s: got %+v", step.name, got)
				}
			}
		}
	}
	servicestest.Eventually(t, func() bool { return !b.Degraded(token) }, "still degraded")
}

// A call of an application that sets no budget for Redis waits for a frozen one once.
func TestFrozenRedisIsWaitedForOnce(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(t *testing.T, w *world, i instance) func() error{
		"get": func(t *testing.T, w *world, i instance) func() error {
			token, _ := signIn(t, i, w.signUp(t))
			i.Evict(token)
			return func() error { _, err := i.Get(t.Context(), token); return err }
		},
		"rotate": func(t *testing.T, w *world, i instance) func() error {
			ann := w.signUp(t)
			_, s := signIn(t, i, ann)
			return func() error { _, _, err := w.changePassword(t.Context(), i, s, ann.Epoch); return err }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, registry := newWorld(t), prometheus.NewRegistry()
			rdb := redistest.At(t, w.server.Addr, redis.Options{Timeout: 100 * time.Millisecond, Metrics: registry})
			i := w.instance(t, rdb, session.Options{})
			servicestest.Eventually(t, func() bool { // until the call comes before Redis counts as away
				servicestest.Eventually(t, rdb.Available, "Redis is not used again")
				ask := call(t, w, i)
				before := redisCalls(t, registry)
				w.server.Freeze()
				err := ask()
				after := redisCalls(t, registry)
				w.server.Thaw()
				if err != nil {
					t.Fatal(err)
				}
				late, skipped := after["timeout"]-before["timeout"], after["skipped"]-before["skipped"]
				if late > 0 && skipped == 0 {
					t.Fatalf("%v calls timed out, and the others were sent, too", late)
				}
				return late > 0
			}, "no call times out")
		})
	}
}

// redisCalls counts the calls to Redis by their result.
func redisCalls(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "gatehouse_redis_calls_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			calls[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return calls
}

// A database that hangs is reported within its timeout. No session ends by it, and no token
// that has none is let in.
func TestDatabaseFrozen(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	postgres := servicestest.StartPostgresServer(t)
	patient, server := newWorldWith(t, store.Options{URL: postgres.URL, Timeout: servicestest.Patience}), servicestest.StartRedis(t)
	other, ann := patient.instance(t, redistest.Impatient(t, server.Addr), session.Options{}), patient.signUp(t)
	token, _ := signIn(t, other, ann)
	ended, _ := signIn(t, other, ann)
	if err := other.Delete(t.Context(), ended); err != nil {
		t.Fatal(err)
	}
	w := newWorldWith(t, store.Options{URL: postgres.URL, Timeout: timeout})
	i := w.instance(t, redistest.Impatient(t, server.Addr), session.Options{})
	servicestest.Eventually(t, func() bool { _, err := i.Get(t.Context(), token); return err == nil && i.Warm(token) }, "no copy")
	postgres.Freeze()
	frozen := time.Now()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			start := time.Now()
			_, err := i.Get(t.Context(), ended)
			took := time.Since(start)
			if !errors.Is(err, models.ErrUnavailable) || errors.Is(err, models.ErrNotFound) || took > timeout+servicestest.Slack(start) {
				t.Errorf("after %v: %v", took, err)
			}
		})
	}
	wg.Wait()
	servicestest.By(t, frozen, promised+timeout, func() bool {
		_, err := i.Get(t.Context(), token)
		if errors.Is(err, models.ErrNotFound) {
			t.Fatal("signed out by a database that hangs")
		}
		return errors.Is(err, models.ErrUnavailable)
	}, "trusted for ever")
	postgres.Thaw()
	servicestest.Eventually(t, func() bool { _, err := i.Get(t.Context(), token); return err == nil }, "not back")
	refused(t, other, ended)
}

// Without the database copies are trusted for 2 s. Then the answer is models.ErrUnavailable.
func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	inFakeTime(t, 1, session.Options{}, func(t *testing.T, all []instance) {
		i := all[0]
		token, s := signIn(t, i, ann)
		ended, _ := signIn(t, i, ann)
		if err := i.Delete(t.Context(), ended); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		mustGet(t, i, token)
		i.db.gone.Store(true)
		mustGet(t, i, token)
		first := "A"
		if token[:1] == first {
			first = "B"
		}
		for _, tried := range []string{ended, first + token[1:]} {
			if _, err := i.Get(t.Context(), tried); !errors.Is(err, models.ErrUnavailable) || errors.Is(err, models.ErrNotFound) {
				t.Errorf("get what is not known: %v", err)
			}
		}
		pass(2 * time.Second)
		if got, err := i.Get(t.Context(), token); !errors.Is(err, models.ErrUnavailable) || errors.Is(err, models.ErrNotFound) {
			t.Errorf("after 2 s: %+v, %v", got, err)
		}
		if i.Warm(token) {
			t.Error("warm without trust")
		}
		if _, err := i.Refresh(t.Context(), s); !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("refresh: %v", err)
		}
		i.db.gone.Store(false)
		mustGet(t, i, token)
	})
}
