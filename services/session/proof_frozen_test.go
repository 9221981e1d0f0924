package session_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// TestFrozenRedisProof: a steady load goes on while Redis is frozen;
// no session ends, no request gets 503, none
// takes longer than one Timeout, and after the first calls it is as quick as before.
func TestFrozenRedisProof(t *testing.T) {
	healthyFor, frozenFor := 200*time.Millisecond, 2*time.Second
	if !servicestest.LongProof() {
		t.Parallel()
	} else { // alone, because it measures
		healthyFor, frozenFor = 2*time.Second, 10*time.Second
	}
	w := newWorld(t)
	i := w.instance(t, redistest.Impatient(t, w.server.Addr), session.Options{MaxPerUser: 100})
	ann := w.signUp(t)
	var tokens []string
	for range 20 {
		token, _ := signIn(t, i, ann)
		tokens = append(tokens, token)
	}
	for _, token := range tokens {
		warmForLong(t, i, token)
	}
	load := func(d time.Duration) (took []time.Duration) {
		t.Helper()
		var mu sync.Mutex
		var workers sync.WaitGroup
		until := time.Now().Add(d)
		for range 8 {
			workers.Go(func() {
				var mine []time.Duration
				ticker := time.NewTicker(time.Millisecond)
				defer ticker.Stop()
				for one := true; one || time.Now().Before(until); one = false {
					<-ticker.C
					began := time.Now()
					s, err := i.Get(redis.WithBudget(t.Context()), tokens[rand.IntN(len(tokens))])
					if err != nil {
						t.Errorf("refused or unavailable: %v", err)
						return
					}
					i.Touch(*s)
					mine = append(mine, time.Since(began))
				}
				mu.Lock()
				defer mu.Unlock()
				took = append(took, mine...)
			})
		}
		workers.Wait()
		if len(took) == 0 {
			t.Fatal("nothing is read")
		}
		slices.Sort(took)
		return took
	}
	p99 := func(took []time.Duration) time.Duration { return took[len(took)*99/100] }
	healthy := load(healthyFor)
	w.server.Freeze()
	frozenAt := time.Now()
	first := load(time.Second)
	then := load(frozenFor - time.Second)
	slack := servicestest.Slack(frozenAt)
	w.server.Thaw()
	t.Logf("p99 healthy %v, first second %v (worst %v), then %v, of %d reads", p99(healthy), p99(first), first[len(first)-1], p99(then), len(healthy)+len(first)+len(then))
	if most := i.redis.Timeout() + slack; first[len(first)-1] > most || then[len(then)-1] > most {
		t.Errorf("a read took %v at first, %v later, want at most %v", first[len(first)-1], then[len(then)-1], most)
	}
	if servicestest.LongProof() {
		if p99(first) > 100*time.Millisecond {
			t.Errorf("p99 of the first second is %v, more than the deadline", p99(first))
		}
		if p99(then) > p99(healthy)*3/2+50*time.Microsecond {
			t.Errorf("p99 %v with Redis frozen, %v before", p99(then), p99(healthy))
		}
	}
}
