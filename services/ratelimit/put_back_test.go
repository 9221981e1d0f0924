package ratelimit

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

func TestPutBack(t *testing.T) {
	t.Parallel()
	// A bucket is whole again also where its instances admitted in turn: what each saw last holds
	// what the others admitted before.
	t.Run("what two instances admitted in turn is whole again", func(t *testing.T) {
		t.Parallel()
		server := miniredis.RunT(t)
		clock := time.Now()
		server.SetTime(clock)
		one, two := embeddedAt(t, server.Addr()), embeddedAt(t, server.Addr())
		for _, p := range []models.Policy{
			{Name: "log", Limit: 90, Window: 90 * time.Minute},
			{Name: "gcra", Limit: 100, Window: 90 * time.Minute, Algorithm: models.AlgorithmGCRA},
		} {
			hit := models.Hit{Policy: p, Key: "k"}
			for range 8 {
				take(t, one, hit)
				take(t, two, hit)
				clock = clock.Add(time.Minute)
				server.SetTime(clock)
			}
			before, err := one.Peek(t.Context(), "group", hit)
			if err != nil {
				t.Fatal(err)
			}
			server.FlushAll()
			for _, l := range []*Limiter{one, two} {
				if err := l.flush(t.Context(), taggedKey{"k", policyKey{p.Name, "k"}}); err != nil {
					t.Fatal(err)
				}
			}
			after, err := two.Peek(t.Context(), "group", hit)
			if err != nil || after[0].Remaining != before[0].Remaining {
				t.Errorf("%s: %d remaining, %v, want %d as before", p.Name, after[0].Remaining, err, before[0].Remaining)
			}
		}
	})

	// What is put back leaves when it would have left, and is there once however often it is
	// published, by however many instances.
	t.Run("what is put back leaves when it would have left", func(t *testing.T) {
		t.Parallel()
		server := miniredis.RunT(t)
		start := time.Now()
		server.SetTime(start)
		one, two := embeddedAt(t, server.Addr()), embeddedAt(t, server.Addr())
		hit := models.Hit{Policy: models.Policy{Name: "log", Limit: 10, Window: time.Minute}, Key: "k", Cost: 2}
		for i, l := range []*Limiter{one, two, one, two} {
			server.SetTime(start.Add(time.Duration(i) * 10 * time.Second))
			take(t, l, hit)
		}
		key := taggedKey{"k", policyKey{"log", "k"}}
		for range 3 {
			server.FlushAll()
			for _, l := range []*Limiter{one, two, two, one} {
				if err := l.flush(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i, want := range []int64{2, 4, 6, 8, 10} {
			server.SetTime(start.Add(time.Duration(i)*10*time.Second + 50*time.Second))
			if i > 0 {
				server.SetTime(start.Add(time.Duration(i-1)*10*time.Second + time.Minute))
			}
			if ds, err := two.Peek(t.Context(), "group", hit); err != nil || ds[0].Remaining != want {
				t.Errorf("step %d: %+v, %v, want %d remaining", i, ds, err, want)
			}
		}
	})

	// An instance that knows when the next unit leaves looks again before it refuses: another one may
	// have put back older units since.
	t.Run("what another instance put back leaves when it would have left", func(t *testing.T) {
		t.Parallel()
		server := miniredis.RunT(t)
		start := time.Now()
		server.SetTime(start)
		one, two := embeddedAt(t, server.Addr()), embeddedAt(t, server.Addr())
		policy := perMinute("log", 10)
		for range 8 {
			takeOne(t, one, policy, "k")
		}
		server.FlushAll()
		for i, l := range []*Limiter{two, one} {
			server.SetTime(start.Add(time.Duration(i+1) * 10 * time.Second))
			takeOne(t, l, policy, "k")
		}
		server.SetTime(start.Add(time.Minute))
		if got := passes(t, two, []models.Hit{hitOf(policy, "k")}); got != 8 {
			t.Errorf("%d pass, want 8: as many as have left", got)
		}
		if d := takeOne(t, two, policy, "k"); d.Allowed || d.RetryAfter.Round(time.Second) != 10*time.Second {
			t.Errorf("%+v, want it to be allowed in 10 s", d)
		}
	})

	// What a refund took back, or a reset gave back, is not put back, by no instance.
	t.Run("what was refunded or reset is not put back", func(t *testing.T) {
		t.Parallel()
		for _, p := range lossy() {
			t.Run(p.Name, func(t *testing.T) {
				t.Parallel()
				server := servicestest.StartRedis(t)
				one, two := limiterAt(t, server.Addr), limiterAt(t, server.Addr)
				p.Block = min(p.Block, 1)
				hit := models.Hit{Policy: p, Key: "k"}
				remaining := func(l *Limiter) int64 {
					t.Helper()
					ds, err := l.Peek(t.Context(), "group", hit)
					if err != nil || ds[0].Degraded {
						t.Fatalf("%+v, %v", ds, err)
					}
					return ds[0].Remaining
				}
				var taken []models.Decision
				for range 4 {
					taken = append(taken, take(t, one, hit)...)
				}
				if err := one.Refund(t.Context(), taken[0]); err != nil {
					t.Fatal(err)
				}
				server.Do("FLUSHALL")
				if err := one.Refund(t.Context(), taken[1]); err != nil { // of what is lost
					t.Fatal(err)
				}
				if got := remaining(one); got != 8 && (p.Algorithm != models.AlgorithmGCRA || got != 7) {
					t.Errorf("%d remaining, want 8: 4 taken and 2 taken back", got)
				}
				take(t, two, hit)
				if err := two.Reset(t.Context(), "group", hit); err != nil {
					t.Fatal(err)
				}
				for range 3 { // the second after another loss
					if got := remaining(one); got != 10 {
						t.Errorf("%d remaining after a reset elsewhere, want 10", got)
					}
					if got := remaining(two); got != 10 {
						t.Errorf("%d remaining after its reset, want 10", got)
					}
					if two.flush(t.Context(), taggedKey{"k", policyKey{p.Name, "k"}}) != nil {
						t.Error("not flushed")
					}
					server.Do("DEL", one.blockKeys(taggedKey{"k", policyKey{p.Name, "k"}})[0])
				}
			})
		}
	})

	// A server that evicts keys may take one of the two that a policy with blocks has: both count as
	// lost then. What a living instance took is put back, and what is left is no hindrance.
	t.Run("of two keys, one evicted counts as both", func(t *testing.T) {
		t.Parallel()
		for half := range 2 {
			server := servicestest.StartRedis(t)
			gone, one := limiterAt(t, server.Addr), limiterAt(t, server.Addr)
			hit := models.Hit{Policy: models.Policy{Name: "leased", Limit: 10, Window: time.Hour, Block: 1}, Key: "k"}
			for range 3 {
				take(t, gone, hit)
			}
			for range 4 {
				take(t, one, hit)
			}
			if err := gone.redis.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			server.Do("DEL", one.blockKeys(taggedKey{"k", policyKey{"leased", "k"}})[half])
			if got := passes(t, one, []models.Hit{hit}); got != 6 {
				t.Errorf("without key %d: %d more pass, want 6", half, got)
			}
			ds, err := one.Peek(t.Context(), "group", hit)
			if err != nil || ds[0].Degraded || ds[0].Allowed || ds[0].RetryAfter < 30*time.Minute {
				t.Errorf("without key %d: %+v, %v", half, ds, err)
			}
		}
	})
}
