package ratelimit

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// autoWorld is instances of one Redis, by a clock of the instances that the test moves.
type autoWorld struct {
	t      *testing.T
	server *servicestest.RedisServer
	clock  atomic.Int64 // microseconds
	l      *Limiter
}

func newAutoWorld(t *testing.T) *autoWorld {
	t.Helper()
	w := &autoWorld{t: t, server: servicestest.StartRedis(t)}
	w.l = w.another()
	return w
}

func (w *autoWorld) another() *Limiter {
	return New(redistest.New(w.t, w.server.Addr), w.options())
}

func (w *autoWorld) options() Options {
	start := time.Now()
	clock := func() time.Time { return start.Add(time.Duration(w.clock.Load()) * time.Microsecond) }
	return Options{Logger: redistest.Quiet(), Clock: clock}
}

// hits makes so many, one each pause, and returns how many scripts they cost. All must pass.
func (w *autoWorld) hits(n int, pause time.Duration, hits ...models.Hit) (scripts int) {
	w.t.Helper()
	before := scriptsRun(w.t, w.server)
	for i := range n {
		w.clock.Add(pause.Microseconds())
		for _, d := range take(w.t, w.l, hits...) {
			if !d.Allowed || d.Degraded || d.Admission == (models.Admission{}) {
				w.t.Fatalf("hit %d: %+v", i, d)
			}
		}
	}
	return scriptsRun(w.t, w.server) - before
}

// blocksEnd lets the time of a key's blocks pass, for the instances and for Redis.
func (w *autoWorld) blocksEnd(hit models.Hit) {
	w.t.Helper()
	req := newRequest(&hit)
	servicestest.Eventually(w.t, func() bool {
		return w.server.Do("EXISTS", w.l.inUseKey(taggedKey{req.name.key, req.name})) == "0"
	}, "a block stays in use")
	w.clock.Add(maxAhead + leftoverPause)
}

// remain is how many units another instance sees.
func (w *autoWorld) remain(other *Limiter, hit models.Hit) int64 {
	w.t.Helper()
	d := peek(w.t, other, hit)[0]
	if d.Degraded {
		w.t.Fatalf("%+v", d)
	}
	return d.Remaining
}

// autoPolicies are a log and a bucket in which nothing leaves or leaks out while a test runs.
func autoPolicies() []models.Policy {
	return []models.Policy{
		{Name: "log", Limit: 1000, Window: time.Hour, Block: models.BlockAuto},
		{Name: "gcra", Limit: 10_000, Window: 24 * time.Hour, Block: models.BlockAuto},
	}
}

func TestAutoBlock(t *testing.T) {
	t.Parallel()
	w := newAutoWorld(t)
	scriptless := w.another()
	takeOne(t, scriptless, perMinute("first", 10), "k") // the scripts are loaded
	other := w.another()

	for _, policy := range autoPolicies() {
		hit := func(key string) models.Hit { return hitOf(policy, policy.Name+key) }

		t.Run(policy.Name+": a busy key costs few scripts, and its headers are exact", func(t *testing.T) {
			w.t = t
			if n := w.hits(500, time.Millisecond, hit("busy")); n > 500/4 {
				t.Errorf("%d scripts for 500 hits", n)
			}
			before := w.remain(w.l, hit("busy"))
			for i := range int64(30) {
				if d := take(t, w.l, hit("busy"))[0]; d.Remaining != before-1-i || d.ResetAfter <= 0 || d.ResetAfter > policy.Window {
					t.Fatalf("hit %d: %+v, want %d remaining", i, d, before-1-i)
				}
			}
		})

		t.Run(policy.Name+": any other key is asked for each time", func(t *testing.T) {
			w.t = t
			if n := w.hits(40, 25*time.Millisecond, hit("quiet")); n < 40 {
				t.Errorf("%d scripts for 40 hits", n)
			}
			if got := w.remain(other, hit("quiet")); got != ruleMost(policy)-40 {
				t.Errorf("%d remain", got)
			}
		})

		t.Run(policy.Name+": what is not used is given back", func(t *testing.T) {
			w.t = t
			w.hits(105, time.Millisecond, hit("given back"))
			if got := w.remain(other, hit("given back")); got >= ruleMost(policy)-105 {
				t.Fatalf("%d remain: no block is in use", got)
			}
			w.blocksEnd(hit("given back"))
			servicestest.Eventually(t, func() bool { return w.remain(other, hit("given back")) == ruleMost(policy)-105 }, "it is not given back")
		})

		t.Run(policy.Name+": a refund takes back one, and once", func(t *testing.T) {
			w.t = t
			w.hits(100, time.Millisecond, hit("refunds"))
			var all []models.Decision
			for range 20 {
				all = append(all, take(t, w.l, hit("refunds"))...)
			}
			w.blocksEnd(hit("refunds"))
			for range 2 {
				if err := w.l.Refund(t.Context(), all...); err != nil {
					t.Fatal(err)
				}
			}
			most := ruleMost(policy) - 100
			least := most - ruleOf(&policy).burst/1000 // a bucket leaks meanwhile
			servicestest.Eventually(t, func() bool { return w.remain(other, hit("refunds")) >= least }, "what was refunded, or not used, is not back")
			if got := w.remain(other, hit("refunds")); got > most {
				t.Errorf("%d remain, want %d", got, most)
			}
		})

		t.Run(policy.Name+": a block ends with its policy", func(t *testing.T) {
			w.t = t
			w.hits(105, time.Millisecond, hit("policy"))
			lower := hit("policy")
			lower.Policy.Limit /= 2
			if n := w.hits(1, 0, lower); n < 1 {
				t.Errorf("%d scripts: it came out of the block of the other policy", n)
			}
			if ruleOf(&policy).burst > 0 {
				return // a bucket leaks it if the next block is in use then
			}
			w.blocksEnd(hit("policy"))
			servicestest.Eventually(t, func() bool { return w.remain(other, lower) == ruleMost(lower.Policy)-106 }, "the block is not given back")
		})

		t.Run(policy.Name+": a reset forgets the block", func(t *testing.T) {
			w.t = t
			w.hits(105, time.Millisecond, hit("reset"))
			if err := w.l.Reset(t.Context(), "group", hit("reset")); err != nil {
				t.Fatal(err)
			}
			if d := take(t, w.l, hit("reset"))[0]; d.Remaining != ruleMost(policy)-1 {
				t.Errorf("%+v", d)
			}
		})

		t.Run(policy.Name+": one instance admits the limit, whatever Redis loses", func(t *testing.T) {
			w.t = t
			passed := int64(0)
			for range 2 * policy.Limit {
				if passed%90 == 60 {
					w.server.Do("FLUSHALL")
				}
				w.clock.Add(500)
				d := take(t, w.l, hit("lost"))[0]
				if d.Degraded {
					t.Fatalf("%+v", d)
				}
				if !d.Allowed {
					break
				}
				passed++
			}
			if passed != ruleMost(policy) {
				t.Errorf("%d passed, want %d", passed, ruleMost(policy))
			}
		})
	}

	t.Run("a limit of which a fiftieth is nothing has no blocks", func(t *testing.T) {
		w.t = t
		small := models.Policy{Name: "small", Limit: 49, Window: time.Hour, Block: models.BlockAuto}
		if n := w.hits(49, time.Millisecond, hitOf(small, "k")); n < 49 {
			t.Errorf("%d scripts for 49 hits", n)
		}
	})

	t.Run("policies together are served from blocks of all of them", func(t *testing.T) {
		w.t = t
		all := []models.Hit{hitOf(autoPolicies()[0], "together"), hitOf(autoPolicies()[1], "together")}
		if n := w.hits(300, time.Millisecond, all...); n > 300/4 {
			t.Errorf("%d scripts for 300 hits", n)
		}
		for range 400 {
			w.clock.Add(1000)
			take(t, w.l, hitOf(autoPolicies()[0], "together"))
		}
		for range 20 { // all, or none
			ds := take(t, w.l, all...)
			if both := ds[0].Allowed && ds[1].Allowed; (ds[0].Admission != (models.Admission{})) != both || (ds[1].Admission != (models.Admission{})) != both {
				t.Fatalf("%+v", ds)
			}
		}
	})

	t.Run("those that come at once wait for one block", func(t *testing.T) {
		hit := hitOf(autoPolicies()[0], "at once")
		w.t = t
		w.hits(100, time.Millisecond, hit)
		w.clock.Add(maxAhead)
		before := scriptsRun(t, w.server)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 20 {
					if ds, err := w.l.Take(context.Background(), "group", hit); err != nil || !ds[0].Allowed {
						t.Errorf("%+v, %v", ds, err)
					}
				}
			})
		}
		wg.Wait()
		if n := scriptsRun(t, w.server) - before; n > 320/3 {
			t.Errorf("%d scripts for 320 hits", n)
		}
	})

	t.Run("what a call that failed may have counted is given back", func(t *testing.T) {
		w.t = t
		hit := hitOf(autoPolicies()[0], "failed")
		w.hits(200, time.Millisecond, hit)
		w.blocksEnd(hit)
		servicestest.Eventually(t, func() bool { return w.remain(other, hit) == 800 }, "the block is not given back")
		requests, err := w.l.prepare([]models.Hit{hit}, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, call := w.l.outbox.takeAhead("failed", requests, false)
		if call == nil {
			t.Fatal("the key is not busy")
		}
		arrived := build(redistest.New(t, w.server.Addr), w.options()) // puts nothing back of what is missing
		if _, err := arrived.runFetching(t.Context(), "failed", requests, 77, call); err != nil {
			t.Fatal(err)
		}
		if got := w.remain(other, hit); got >= 799 {
			t.Fatalf("%d remain: nothing was counted ahead", got)
		}
		w.l.outbox.endFetch("failed", requests, call, models.ErrUnavailable)
		servicestest.Eventually(t, func() bool { return w.remain(other, hit) == 799 }, "it is not given back")
	})

	t.Run("a caller who leaves takes no block from those that wait", func(t *testing.T) {
		w.t = t
		hit := hitOf(autoPolicies()[0], "left")
		w.hits(200, time.Millisecond, hit)
		w.clock.Add(maxAhead)
		gone, leave := context.WithCancel(t.Context())
		leave()
		if ds, err := w.l.Take(gone, "group", hit); err != nil || ds[0].Degraded {
			t.Errorf("%+v, %v", ds, err)
		}
		before := scriptsRun(t, w.server)
		take(t, w.l, hit)
		if n := scriptsRun(t, w.server) - before; n > 0 {
			t.Errorf("%d scripts: there is no block", n)
		}
	})

	t.Run("a caller without time left does not decide for those that wait", func(t *testing.T) {
		w.t = t
		hit := hitOf(autoPolicies()[0], "late")
		w.hits(200, time.Millisecond, hit)
		w.clock.Add(maxAhead)
		requests, err := w.l.prepare([]models.Hit{hit}, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, call := w.l.outbox.takeAhead("late", requests, false)
		if call == nil {
			t.Fatal("the key is not busy")
		}
		close(call.done) // those that find it wait no longer
		if d := take(t, w.l, hit)[0]; d.Degraded {
			t.Errorf("%+v", d)
		}
	})

	t.Run("what is left is given back when the limiter is closed", func(t *testing.T) {
		w.t = t
		own := &autoWorld{t: t, server: w.server}
		own.l = own.another()
		for _, policy := range autoPolicies() {
			hit := hitOf(policy, policy.Name+"closed")
			own.hits(105, time.Millisecond, hit)
		}
		if err := own.l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		log := autoPolicies()[0]
		if got := w.remain(other, hitOf(log, "logclosed")); got != 895 {
			t.Errorf("%d remain", got)
		}
	})
}

// ruleMost is how many units of a policy pass at once.
func ruleMost(policy models.Policy) int64 {
	if r := ruleOf(&policy); r.burst > 0 {
		return r.burst
	}
	return policy.Limit
}

// The pace of a key is what it was asked for in the last fifth of a second.
func TestPace(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name       string
		every, hit int64 // microseconds, units
		want       int64 // in 20 ms
	}{
		{"50 a second", 20_000, 1, 1},
		{"40 a second", 25_000, 1, 0},
		{"1,000 a second", 1000, 1, 20},
		{"10 a second of 10 units", 100_000, 10, 2},
		{"one a second", second, 1000, 100},
	} {
		var p pace
		now := int64(12_345)
		for range 3 * second / row.every {
			now += row.every
			p.add(now, row.hit)
		}
		if got := p.within(now, autoSpan); got != row.want {
			t.Errorf("%s: %d in 20 ms, want %d", row.name, got, row.want)
		}
	}
}
