package lock

import (
	"context"
	"errors"
	"testing"
	"time"

	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
)

// How long an instance trusts a lease, by its own clock.
func TestLease(t *testing.T) {
	t.Parallel()
	now := time.Now()
	running := func(t *testing.T, left time.Duration) *lease {
		alive, lose := context.WithCancelCause(t.Context())
		t.Cleanup(func() { lose(nil) })
		return &lease{
			lock: Lock{Claim: Claim{Resource: "r"}}, alive: alive, lose: lose, reason: LostBackend,
			since:        now.Add(time.Minute), // just begun, however slow this test is
			trustedUntil: now.Add(left),
		}
	}
	t.Run("ends here earlier than the server answered, by the drift", func(t *testing.T) {
		for ttl, want := range map[time.Duration]time.Duration{
			10 * time.Second:       10*time.Second - 22*time.Millisecond, // a 500th and 2 ms
			100 * time.Millisecond: 100*time.Millisecond - 2200*time.Microsecond,
		} {
			got := reply{code: codeDone, remaining: ttl, now: 1}.lock(Claim{}, now)
			if trusted := got.trustedUntil.Sub(now); trusted != want {
				t.Errorf("%v: trusted for %v, want %v", ttl, trusted, want)
			}
			if !got.serverExpiry().Equal(now.Add(ttl)) {
				t.Errorf("%v: at the server it ends after %v", ttl, got.serverExpiry().Sub(now))
			}
		}
	})
	t.Run("counts from before it was asked for", func(t *testing.T) {
		const ttl, way = 10 * time.Second, 50 * time.Millisecond
		proxy := servicestest.NewProxy(t, servicestest.StartRedis(t).Addr)
		l := at(t, proxy.Addr, patient, Options{})
		proxy.SetLatency(way)
		taken := take(t, l, requestFor("r", alice, ttl))
		if left := time.Until(taken.trustedUntil); left > ttl-drift(ttl)-2*way {
			t.Errorf("acquired: trusted for %v after the answer", left)
		}
		if left := time.Until(extend(t, l, taken, ttl).trustedUntil); left > ttl-drift(ttl)-2*way {
			t.Errorf("extended: trusted for %v after the answer", left)
		}
	})
	t.Run("that ended in a pause is over at the first look", func(t *testing.T) {
		for left, want := range map[time.Duration]bool{time.Minute: false, -time.Millisecond: true} {
			work, done := running(t, left).under(t.Context()) // no timer has ended it, as after a pause of the process
			var lost *LostError
			err := work.Err()
			if known := errors.As(context.Cause(work), &lost) && lost.Reason == LostBackend; (err != nil) != want || known != want {
				t.Errorf("%v left: %v, %v", left, err, context.Cause(work))
			}
			done()
		}
	})
	t.Run("that ended in a pause is not handed over", func(t *testing.T) {
		for left, want := range map[time.Duration]bool{time.Minute: true, -time.Millisecond: false} {
			if got := running(t, left).mayHandOver(); got != want {
				t.Errorf("%v left: handed over: %t", left, got)
			}
		}
	})
	t.Run("is not handed over when its row is full, too long ago, or lost", func(t *testing.T) {
		full, old, lost := running(t, time.Minute), running(t, time.Minute), running(t, time.Minute)
		full.slots = handOversInARow
		old.since = now.Add(-handOverFor)
		lost.revoke()
		for name, lease := range map[string]*lease{"64 in a row": full, "5 ms": old, "lost": lost} {
			if lease.mayHandOver() {
				t.Errorf("%s: handed over", name)
			}
		}
	})
	t.Run("that an extend did not make longer ends as expired, not for want of Redis", func(t *testing.T) {
		for more, want := range map[time.Duration]Loss{time.Second: LostBackend, 0: LostExpired} {
			lease := running(t, -time.Minute)
			lease.extended(now.Add(-time.Minute + more))
			var lost *LostError
			if err := lease.overdue(now); !errors.As(err, &lost) || lost.Reason != want {
				t.Errorf("extended by %v: %v, want %s", more, err, want)
			}
		}
	})
	t.Run("pushed to a waiter is started under only if it is new", pushedLease)
}

// Work starts under a grant before it is confirmed only if the grant was surely made after the
// latest heartbeat, and only while that heartbeat is young.
func pushedLease(t *testing.T) {
	rdb := redis.New(redis.Options{Disabled: true}) // no heartbeat is answered beside this
	t.Cleanup(func() { _ = rdb.Close(t.Context()) })
	l := New(rdb, Options{})
	const epoch = "0123456789abcdef0123456789abcdef"
	for _, row := range []struct {
		name   string
		change func(a *attempt, pushed *pushedGrant, mark *watermark)
		begun  bool
	}{
		{"new", func(*attempt, *pushedGrant, *watermark) {}, true},
		{"older than the heartbeat: it was late, and has ended since perhaps", func(_ *attempt, p *pushedGrant, m *watermark) { m.highestFence = p.grant.fence }, false},
		{"of an epoch that the server has forgotten", func(_ *attempt, p *pushedGrant, _ *watermark) { p.epoch = "f" + epoch[1:] }, false},
		{"the heartbeat was long ago", func(_ *attempt, _ *pushedGrant, m *watermark) { m.heardAt = m.heardAt.Add(-waiterAlive + leastEarly) }, false},
		{"no heartbeat yet", func(_ *attempt, _ *pushedGrant, m *watermark) { *m = watermark{} }, false},
		{"another caller's token", func(_ *attempt, p *pushedGrant, _ *watermark) { p.grant.tokenHash = hashToken("other") }, false},
		{"a lease too short", func(a *attempt, _ *pushedGrant, _ *watermark) { a.req.TTL = leastEarly }, false},
		{"for a caller who does not extend", func(a *attempt, _ *pushedGrant, _ *watermark) { a.extends = false }, false},
	} {
		var lock Lock
		var ok bool
		var heardAt time.Time
		for range 20 { // a machine that pauses for 190 ms has an old heartbeat
			a := l.newAttempt(Request{Resource: "r"})
			a.extends = true
			heardAt = time.Now()
			pushed := &pushedGrant{epoch: epoch, grant: record{fence: 20, grant: a.grant, resource: "r", tokenHash: hashToken(a.req.Token)}}
			mark := watermark{heardAt: heardAt, highestFence: 19}
			row.change(a, pushed, &mark)
			l.shards.change(shardOf("r"), func(s *shardState) { s.epoch, s.watermark = epoch, mark })
			if lock, ok = l.startEarly(a, pushed); ok || !row.begun {
				break
			}
		}
		if ok != row.begun {
			t.Errorf("%s: begun %t", row.name, ok)
		}
		if ok && !lock.trustedUntil.Equal(heardAt.Add(waiterAlive-drift(waiterAlive))) {
			t.Errorf("%s: trusted for %v after the heartbeat", row.name, lock.trustedUntil.Sub(heardAt))
		}
	}
}
