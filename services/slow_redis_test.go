package services_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/ratelimit"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// watched is a client whose changes are counted, and what is built on it.
type watched struct {
	*redis.Client
	name    string // of what it works on: it is alone there
	log     servicestest.LogLines
	locks   *lock.Locker
	limits  *ratelimit.Limiter
	changes atomic.Int64 // of Status
	worked  atomic.Int64 // rounds of work without anything degraded
	rounds  atomic.Int64
	pause   time.Duration // after each round
}

func watch(t *testing.T, opt redis.Options) *watched {
	t.Helper()
	w := &watched{name: t.Name(), pause: 5 * time.Millisecond}
	opt.KeyPrefix = "test:"
	opt.Logger = slog.New(slog.NewTextHandler(&w.log, nil))
	w.Client = redistest.Start(t, opt)
	w.locks = lock.New(w.Client, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: redistest.Quiet()})
	w.limits = ratelimit.New(w.Client, ratelimit.Options{Logger: redistest.Quiet()})
	return w
}

// work takes and gives back a lock and asks a limit, again and again until ctx ends.
// Nothing of that may fail, whatever Redis does.
func (w *watched) work(ctx context.Context, t *testing.T, name string) {
	policy := models.Policy{Name: "p", Limit: models.MaxLimit, Window: time.Minute}
	status := w.Status()
	for ; ctx.Err() == nil; w.rounds.Add(1) {
		if now := w.Status(); now != status {
			status = now
			w.changes.Add(1)
		}
		taken, err := w.locks.TryAcquire(context.Background(), lockRequest(name))
		var held *models.NotAcquiredError
		if err != nil && !errors.As(err, &held) {
			t.Errorf("acquire: %v", err)
			return
		}
		exact := err == nil && !taken.Degraded
		if err == nil {
			if _, err := w.locks.Release(context.Background(), taken.Claim); err != nil && !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("release: %v", err)
				return
			}
		}
		decisions, err := w.limits.Take(context.Background(), "", models.Hit{Policy: policy, Key: name})
		if err != nil {
			t.Errorf("take: %v", err)
			return
		}
		if exact && !decisions[0].Degraded {
			w.worked.Add(1)
		}
		time.Sleep(w.pause)
	}
}

// workForAll is workFor of many at the same time.
func workForAll[K comparable](t *testing.T, all map[K]*watched, d time.Duration) {
	t.Helper()
	var wg sync.WaitGroup
	for _, w := range all {
		w.pause = 20 * time.Millisecond // they are many
		wg.Go(func() { w.workFor(t, d) })
	}
	wg.Wait()
}

// workFor works for a while, with Redis asked all the time.
func (w *watched) workFor(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	w.work(ctx, t, w.name)
}

// A Redis whose round trips come near the timeout is used, and one whose replies come
// later is not. Neither goes to and fro, and one line says what to do.
func TestRedisThatIsSlow(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		each   time.Duration
		status string
	}{{380 * time.Millisecond, "ok"}, {640 * time.Millisecond, "down"}} {
		t.Run(fmt.Sprint(row.each), func(t *testing.T) {
			t.Parallel()
			proxy := servicestest.NewProxy(t, servicestest.StartRedis(t).Addr)
			// A busy machine must not fill what is left of the timeout.
			w := watch(t, redis.Options{Client: rueidis.ClientOption{InitAddress: []string{proxy.Addr}}, Timeout: time.Second})
			redistest.WaitReady(t, w.Client)
			proxy.SetLatency(row.each)
			began := time.Now()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() { w.work(ctx, t, fmt.Sprint(w.name, i)) })
			}
			servicestest.Eventually(t, func() bool { return w.Nodes()[0].State == redis.NodeSlow }, "it is not called slow")
			stays := 6 * time.Second // in less nothing about slowness may change
			if servicestest.LongProof() {
				stays = time.Minute
			}
			time.Sleep(stays)
			cancel()
			wg.Wait()
			long := time.Since(began)
			if most := max(int64(long/(5*time.Second)), 1) * 4; w.changes.Load() > most { // each worker sees them
				t.Errorf("%d changes seen by 4 workers in %v", w.changes.Load(), long)
			}
			if w.Status() != row.status || w.Nodes()[0].State != redis.NodeSlow || !strings.Contains(w.Reason(), "REDIS_TIMEOUT") {
				t.Errorf("%s, %+v", w.Status(), w.Nodes())
			}
			if lines := w.log.With("level=WARN"); len(lines) != 1 || !strings.Contains(lines[0], "REDIS_TIMEOUT") {
				t.Errorf("the log:\n%s", w.log.String())
			}
			got, of := w.worked.Load(), w.rounds.Load()
			if row.status == "ok" && servicestest.LongProof() && got*2 < of { // on a machine with nothing else to do
				t.Errorf("%d of %d rounds were exact", got, of)
			}
			t.Logf("%d changes, %d of %d rounds exact, %s", w.changes.Load(), got, of, w.Reason())
		})
	}
}
