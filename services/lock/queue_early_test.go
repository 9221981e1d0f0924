package lock

import (
	"context"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// Work starts under a grant before it is confirmed only if the grant was surely made after the
// latest heartbeat, and only while that heartbeat is young.
func TestLockPushedGrantIsStartedUnderOnlyIfItIsNew(t *testing.T) {
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
		a := l.newAttempt(Request{Resource: "r"})
		a.extends = true
		now := time.Now()
		pushed := &pushedGrant{epoch: epoch, grant: record{fence: 20, grant: a.grant, resource: "r", tokenHash: hashToken(a.req.Token)}}
		mark := watermark{heardAt: now, highestFence: 19}
		row.change(a, pushed, &mark)
		l.shards.change(shardOf("r"), func(s *shardState) { s.epoch, s.watermark = epoch, mark })
		lock, ok := l.startEarly(a, pushed)
		if ok != row.begun {
			t.Errorf("%s: begun %t", row.name, ok)
		}
		if ok && lock.trustedUntil.After(now.Add(waiterAlive-waiterAlive/500-2*time.Millisecond)) { // less the drift
			t.Errorf("%s: believed for %v, longer than the server promised", row.name, lock.trustedUntil.Sub(now))
		}
	}
}

// The lease of a pushed grant is confirmed while the work is under way.
func TestWithLockStartsUnderAPushedGrant(t *testing.T) {
	server := servicestest.StartRedis(t)
	patient := redis.Options{Timeout: 5 * time.Second} // without Redis no call would queue there
	holder, l := New(redistest.At(t, server.Addr, patient), Options{}), New(redistest.At(t, server.Addr, patient), Options{})
	begun := 0
	for range 10 {
		lock, err := holder.TryAcquire(t.Context(), Request{Resource: "r"})
		if err != nil {
			t.Fatal(err)
		}
		working, finish, done := make(chan Lock, 1), make(chan struct{}), make(chan error, 1)
		go func() {
			done <- l.WithLock(t.Context(), Request{Resource: "r", TTL: 10 * time.Second, Holder: models.Holder{UserID: "2"}}, func(ctx context.Context, lock Lock) error {
				working <- lock
				select {
				case <-finish:
				case <-ctx.Done():
				}
				return ctx.Err()
			})
		}()
		servicestest.Eventually(t, func() bool {
			s, err := holder.Status(t.Context(), "r")
			return err == nil && s.Waiting == 1
		}, "no waiter queued")
		queued := time.Now()
		servicestest.Eventually(t, func() bool { return l.shards.get(shardOf("r")).heardAt.After(queued) }, "no heartbeat")
		if _, err := holder.Release(t.Context(), lock.Claim); err != nil {
			t.Fatal(err)
		}
		select {
		case lock := <-working:
			if lock.unconfirmed {
				begun++
			}
		case err := <-done:
			t.Fatalf("no work was done: %v", err)
		}
		servicestest.Within(t, time.Second, func() bool {
			s, err := holder.Status(t.Context(), "r")
			return err == nil && s.Held && s.Holder.UserID == "2" && s.TTL > time.Second
		}, "the lease is not extended")
		close(finish)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if begun == 0 {
		t.Error("each waited until its grant was confirmed")
	}
	t.Logf("%d of 10 began at once", begun)
}
