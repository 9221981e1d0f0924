package ratelimit_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// evals is how many scripts the server has run.
func evals(t *testing.T, server *servicestest.RedisServer) (n int) {
	t.Helper()
	for _, command := range []string{"cmdstat_evalsha:calls=", "cmdstat_eval:calls="} {
		if _, rest, found := strings.Cut(server.Do("INFO", "commandstats"), command); found {
			calls := 0
			if _, err := fmt.Sscanf(rest, "%d", &calls); err != nil {
				t.Fatal(err)
			}
			n += calls
		}
	}
	return n
}

func TestFloodStaysHere(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := newLimiter(redistest.Patient(t, server.Addr))
	policy := perMinute("p", 2)
	hit := hitOf(policy, "k")
	for range 3 {
		takeOne(t, l, policy, "k")
	}
	before, start := evals(t, server), time.Now()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5_000 {
				if ds, err := l.Take(context.Background(), "group", hit); err != nil || ds[0].Allowed || ds[0].Degraded {
					t.Errorf("%+v, %v", ds, err)
					return
				}
			}
		})
	}
	wg.Wait()
	seconds := 1 + int(time.Since(start)/time.Second)
	if asked := evals(t, server) - before; asked > seconds {
		t.Errorf("40,000 denied hits in %d s asked Redis %d times", seconds, asked)
	}
	if d := takeOne(t, l, policy, "k"); d.Allowed || d.RetryAfter < 30*time.Second {
		t.Errorf("%+v", d)
	}
	hits := []models.Hit{hit}
	if allocs := testing.AllocsPerRun(1000, func() { _, _ = l.Take(context.Background(), "group", hits...) }); allocs > 1 { // its decisions
		t.Errorf("Take allocates %v times for a denied hit", allocs)
	}
	if !takeOne(t, l, policy, "other").Allowed {
		t.Error("another key is denied")
	}
	if !takeOne(t, l, perMinute("p", 3), "k").Allowed {
		t.Error("a raised limit is still denied")
	}
}

// Asking about a flooded key is cheap too.
func TestPeekRemembersARefusal(t *testing.T) {
	server := servicestest.StartRedis(t)
	l, other := newLimiter(redistest.Patient(t, server.Addr)), newLimiter(redistest.Patient(t, server.Addr))
	hit := hitOf(perMinute("p", 1), "k")
	if ds, err := l.Peek(t.Context(), "group", hit); err != nil || !ds[0].Allowed || ds[0].Admission != (models.Admission{}) {
		t.Fatalf("%+v, %v", ds, err)
	}
	take(t, other, hit)
	before := evals(t, server)
	for range 1000 {
		if ds, err := l.Peek(t.Context(), "group", hit); err != nil || ds[0].Allowed || ds[0].RetryAfter == 0 {
			t.Fatalf("%+v, %v", ds, err)
		}
	}
	if asked := evals(t, server) - before; asked > 2 {
		t.Errorf("1,000 looks at a denied key asked Redis %d times", asked)
	}
}

// What another instance gave back shows within a second.
func TestDenialIsNotBelievedLong(t *testing.T) {
	server := servicestest.StartRedis(t)
	l, other := newLimiter(redistest.Patient(t, server.Addr)), newLimiter(redistest.Patient(t, server.Addr))
	policy := perMinute("p", 1)
	takeOne(t, l, policy, "k")
	takeOne(t, l, policy, "k")
	if err := other.Reset(t.Context(), "group", hitOf(policy, "k")); err != nil {
		t.Fatal(err)
	}
	if d := takeOne(t, l, policy, "k"); d.Allowed {
		t.Fatal("the denial was not remembered")
	}
	servicestest.Within(t, 1200*time.Millisecond, func() bool { return takeOne(t, l, policy, "k").Allowed },
		"the reset by another instance did not show")
}

// A dearer hit has to wait longer than the cheaper one that was refused before it, and is answered
// so. A flood of such hits costs Redis one command a second for each instance and key, two if its
// costs differ.
func TestDearerHitIsToldItsOwnWait(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	l, fresh := newLimiter(redistest.Patient(t, server.Addr)), newLimiter(redistest.Patient(t, server.Addr))
	log, gcra, usesBlocks := perMinute("log", 6), perMinute("gcra", 60), perMinute("leased", 6)
	gcra.Algorithm, usesBlocks.Block = models.AlgorithmGCRA, 1
	hit := func(policy models.Policy, cost int64) models.Hit {
		return models.Hit{Policy: policy, Key: "k", Cost: cost}
	}
	takeHalf := func() {
		for _, policy := range []models.Policy{log, gcra, usesBlocks} {
			for range 3 {
				take(t, l, hit(policy, 1))
			}
		}
	}
	takeHalf()
	servicestest.Eventually(t, func() bool { // by Redis's clock, or all units would come back at once
		ds, err := fresh.Peek(t.Context(), "group", hit(usesBlocks, 1)) // taken last
		return err == nil && ds[0].ResetAfter <= time.Minute-400*time.Millisecond
	}, "the units that were taken come no nearer")
	takeHalf()
	for _, policy := range []models.Policy{log, gcra, usesBlocks} {
		for take(t, l, hit(policy, 1))[0].Allowed {
			continue
		}
		asked := time.Now()
		want, err := fresh.Peek(t.Context(), "group", hit(policy, 4)) // by Redis
		if err != nil {
			t.Fatal(err)
		}
		least := func() time.Duration { return want[0].RetryAfter - time.Since(asked) - 100*time.Millisecond }
		for range 3 {
			if d := take(t, l, hit(policy, 4))[0]; d.Allowed || d.RetryAfter < least() {
				t.Errorf("%s: answered %v, has to wait %v", policy.Name, d.RetryAfter, want[0].RetryAfter)
			}
			ds, err := l.Peek(t.Context(), "group", hit(policy, 5))
			if err != nil || ds[0].Allowed || ds[0].RetryAfter < least() {
				t.Errorf("%s: a look is answered %+v, %v", policy.Name, ds, err)
			}
		}
	}
	asked := time.Now()
	cheap, err := fresh.Peek(t.Context(), "group", hit(usesBlocks, 1))
	if err != nil || cheap[0].RetryAfter > time.Minute-300*time.Millisecond {
		t.Errorf("a look at a cheap hit of a policy with blocks: %+v, %v", cheap, err)
	}
	dear, err := fresh.Peek(t.Context(), "group", hit(usesBlocks, 4))
	if err != nil || dear[0].RetryAfter < cheap[0].RetryAfter-time.Since(asked)+300*time.Millisecond {
		t.Errorf("a look at a dear hit of a policy with blocks: %+v, %v", dear, err)
	}
	before, start := evals(t, server), time.Now()
	for time.Since(start) < 1300*time.Millisecond {
		if d := take(t, l, hit(log, 3))[0]; d.Allowed {
			t.Fatalf("%+v", d)
		}
	}
	if n := evals(t, server) - before; n > 3 {
		t.Errorf("a flood of dearer hits asked Redis %d times in 1.3 s", n)
	}
}
