package ratelimit

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// toTheMicrosecond is a Limiter and its Redis by one clock, which the test sets.
type toTheMicrosecond struct {
	*Limiter
	t      *testing.T
	server *miniredis.Miniredis // nil without Redis
	clock  atomic.Int64         // microseconds since the world began
}

func newToTheMicrosecond(t *testing.T, withRedis bool) *toTheMicrosecond {
	t.Helper()
	w := &toTheMicrosecond{t: t}
	if withRedis {
		w.server = miniredis.RunT(t)
	}
	w.setClock(0)
	w.Limiter = w.another()
	return w
}

// another is a Limiter of the same Redis, by the same clock.
func (w *toTheMicrosecond) another() *Limiter {
	w.t.Helper()
	opt := Options{Logger: redistest.Quiet(), Clock: func() time.Time { return time.UnixMicro(fuzzStart + w.clock.Load()) }}
	if w.server == nil {
		return New(redistest.Start(w.t, redis.Options{Disabled: true}), opt)
	}
	return New(redistest.At(w.t, w.server.Addr(), redis.Options{Embedded: true}), opt)
}

func (w *toTheMicrosecond) setClock(at int64) {
	w.clock.Store(at)
	if w.server != nil {
		w.server.SetTime(time.UnixMicro(fuzzStart + at))
	}
}

// beside is a hit that always passes.
func beside(algorithm models.Algorithm) models.Hit {
	return models.Hit{Policy: models.Policy{Name: "beside", Limit: 1000, Window: time.Minute, Algorithm: algorithm}, Key: "k"}
}

func (w *toTheMicrosecond) alone(hit models.Hit) models.Decision {
	w.t.Helper()
	return take(w.t, w.Limiter, hit)[0]
}

func (w *toTheMicrosecond) inAGroup(hit models.Hit) models.Decision {
	w.t.Helper()
	return take(w.t, w.Limiter, beside(models.AlgorithmAuto), hit)[1]
}

func (w *toTheMicrosecond) inABatch(hit models.Hit) (d models.Decision) {
	w.t.Helper()
	batch := w.logs
	if hit.Policy.Algorithm == models.AlgorithmGCRA {
		batch = w.buckets
	}
	release := batch.Hold()
	var wg sync.WaitGroup
	for _, hit := range []models.Hit{beside(hit.Policy.Algorithm), hit} {
		wg.Go(func() {
			if ds, err := w.Take(w.t.Context(), "group", hit); err != nil {
				w.t.Error(err)
			} else if hit.Policy.Name != "beside" {
				d = ds[0]
			}
		})
	}
	servicestest.Eventually(w.t, func() bool { return batch.Waiting() == 2 }, "the two do not go together")
	release()
	wg.Wait()
	return d
}

// A window is as long as its policy says, to the microsecond: what was admitted counts in the last
// one of its window, and one later it does not.
func TestWindowIsExact(t *testing.T) {
	t.Parallel()
	const w = second
	type step struct{ at, retry int64 } // with retry 0 it passes
	log := models.Policy{Name: "log", Limit: 2, Window: time.Second}
	one := models.Policy{Name: "gcra-1", Limit: 1, Window: time.Second, Algorithm: models.AlgorithmGCRA}
	ten := models.Policy{Name: "gcra-10", Limit: 10, Window: time.Second, Algorithm: models.AlgorithmGCRA} // one in 111,111.1 us
	usesBlocks := models.Policy{Name: "blocks", Limit: 1, Window: 10 * time.Second, Block: 1}
	length := blockLength(10 * w)
	for _, row := range []struct {
		name   string
		policy models.Policy
		steps  []step
	}{
		{"a log", log, []step{{0, 0}, {1, 0}, {w - 1, 1}, {w, 0}, {w, 1}, {w + 1, 0}, {2*w - 1, 1}, {2 * w, 0}}},
		{"a bucket of one unit", one, []step{{0, 0}, {w - 1, 1}, {w, 0}, {2*w - 1, 1}, {2 * w, 0}}},
		{"a bucket", ten, []step{{0, 0}, {111_111, 1}, {111_112, 0}, {222_223, 1}, {222_224, 0}}},
		{"a block", usesBlocks, []step{{0, 0}, {10*w + length - 1, 1}, {10*w + length, 0}}},
		{"a block that was returned", usesBlocks, []step{{0, 0}, {5, 10 * w}, {10*w + 4, 1}, {10*w + 5, 0}}},
	} {
		for name, ask := range map[string]func(*toTheMicrosecond, models.Hit) models.Decision{
			"alone":         (*toTheMicrosecond).alone,
			"in a group":    (*toTheMicrosecond).inAGroup,
			"in a batch":    (*toTheMicrosecond).inABatch,
			"without Redis": (*toTheMicrosecond).alone,
		} {
			withRedis := name != "without Redis"
			if row.policy.Block > 0 && (name == "in a batch" || !withRedis) {
				continue // blocks are never in one, and need Redis
			}
			t.Run(row.name+" "+name, func(t *testing.T) {
				t.Parallel()
				w := newToTheMicrosecond(t, withRedis)
				for i, step := range row.steps {
					w.setClock(step.at)
					d := ask(w, models.Hit{Policy: row.policy, Key: "k"})
					if d.Degraded == withRedis || d.Allowed != (step.retry == 0) || d.RetryAfter.Microseconds() != step.retry {
						t.Errorf("step %d, at %d us: %+v, want %d us to wait", i, step.at, d, step.retry)
					}
				}
			})
		}
	}
}

// A window that is made shorter counts for what was admitted before.
func TestWindowIsShortened(t *testing.T) {
	t.Parallel()
	w := newToTheMicrosecond(t, true)
	policy := models.Policy{Name: "log", Limit: 3, Window: time.Hour}
	for at := range int64(2) {
		w.setClock(at)
		w.alone(hitOf(policy, "k"))
	}
	policy.Window = time.Second
	w.setClock(2 * second)
	if d := w.alone(hitOf(policy, "k")); !d.Allowed || d.Remaining != 2 {
		t.Errorf("%+v, want the earlier ones to have left", d)
	}
}
