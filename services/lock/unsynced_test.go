package lock

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// TestUnsyncedLocks: what an instance has granted without Redis, because a single call failed,
// stands although Redis answers again and does not know of it yet. The heartbeats tell it, too, but
// later.
func TestUnsyncedLocks(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	l, other := openAt(t, server.Addr), openAt(t, server.Addr)
	const locks = 20
	// degraded is a lock of alice that Redis does not know.
	degraded := func(t *testing.T, i int) entry {
		t.Helper()
		a := l.newAttempt(request(fmt.Sprintf("%s %d", t.Name(), i), alice))
		if _, status := l.table.acquire(time.Now(), a.claim(), alice, time.Minute, false); status != nil {
			t.Fatalf("%+v", status)
		}
		known, _ := l.table.find(a.claim())
		return known
	}
	stands := func(t *testing.T, claim Claim) {
		t.Helper()
		if degraded, err := l.Check(t.Context(), claim); err != nil || degraded {
			t.Errorf("check: %v, degraded %t", err, degraded)
		}
	}

	t.Run("nobody else gets it here", func(t *testing.T) {
		for i := range locks {
			known := degraded(t, i)
			var held *models.NotAcquiredError
			if _, err := l.TryAcquire(t.Context(), request(known.lock.Resource, bob)); !errors.As(err, &held) || held.Status.Holder.UserID != alice.UserID {
				t.Errorf("bob: %v", err)
			}
			stands(t, known.lock.Claim)
		}
	})

	t.Run("a heartbeat that tells it beside a call of its holder takes nothing away", func(t *testing.T) {
		for i := range locks { // some of them in a shard that has no epoch
			before, err := l.run(t.Context(), l.scripts.status, fmt.Sprintf("%s %d", t.Name(), i))
			if err != nil {
				t.Fatal(err)
			}
			before.code = codeRefused // as check makes of the answer that it is free
			known, again := degraded(t, i), false
			if _, err := l.runHeld(t.Context(), "check", known.lock.Claim, func() (reply, error) {
				if again {
					return l.run(t.Context(), l.scripts.status, known.lock.Resource)
				}
				again = true
				_, err := l.reassert(t.Context(), known)
				return before, err
			}); err != nil {
				t.Errorf("its holder is refused: %v", err)
			}
			stands(t, known.lock.Claim)
		}
	})

	t.Run("one that was extended and given back is not told any more", func(t *testing.T) {
		for i := range locks {
			known := degraded(t, i)
			req := request(known.lock.Resource, alice)
			req.Token = known.lock.Token
			first := &attempt{l: l, req: req, grant: known.lock.Grant, block: 1} // whose reply was lost
			if got, err := l.runAcquire(t.Context(), first, false); err != nil || got.code == codeRefused {
				t.Fatalf("%d, %v", got.code, err)
			}
			extend(t, l, known.lock, time.Minute)
			giveBack(t, l, known.lock)
			late := &attempt{l: l, req: req, grant: known.lock.Grant, block: 1, reasserts: &known}
			if got, err := l.runAcquire(t.Context(), late, false); err != nil || got.code != codeRefused {
				t.Errorf("a heartbeat that had it in hand is answered with %d, %v", got.code, err)
			}
		}
	})

	t.Run("a forced end is not forced upon the next holder", func(t *testing.T) {
		for i := range locks {
			over := take(t, l, request(fmt.Sprint("forced ", i), alice))
			waits := other.newAttempt(request(over.Resource, bob))
			if got, err := other.runAcquire(t.Context(), waits, true); err != nil || got.code != codeRefused {
				t.Fatalf("%d, %v", got.code, err)
			}
			l.table.put(op{kind: opTombstone, claim: over.Claim})
			l.table.release(over.Claim)
			if _, owed := l.table.owedEnd(over.Grant); !owed {
				continue // a heartbeat has told it, and the next holder has the lock
			}
			if was, err := l.ForceRelease(t.Context(), over.Resource, nil); err == nil && was.Holder.UserID != alice.UserID {
				t.Errorf("forced: %+v", was)
			}
			if got, err := other.runAcquire(t.Context(), waits, true); err != nil || got.grant != waits.grant {
				t.Errorf("the next holder is answered with %d %s, %v", got.code, got.grant, err)
			}
			if found := server.Do("KEYS", "*tombstone:"+waits.grant); found != "" {
				t.Errorf("the next holder's grant is over: %s", found)
			}
		}
	})

	t.Run("a lock that ended by itself can be told again after a refusal", func(t *testing.T) {
		for i := range locks {
			short := take(t, l, requestFor(fmt.Sprint("again ", i), alice, 50*time.Millisecond))
			known := entry{lock: short, origin: originLocal, epoch: l.shards.get(shardOf(short.Resource)).epoch}
			servicestest.Eventually(t, func() bool {
				got, err := other.run(t.Context(), other.scripts.status, short.Resource)
				return err == nil && got.grant == ""
			}, "the lease does not end")
			between := take(t, other, request(short.Resource, bob))
			req := request(short.Resource, alice)
			req.Token = short.Token
			again := &attempt{l: l, req: req, grant: short.Grant, block: 1, reasserts: &known}
			if got, err := l.runAcquire(t.Context(), again, false); err != nil || got.code != codeRefused {
				t.Errorf("while another has it: %d, %v", got.code, err)
			}
			giveBack(t, other, between)
			if got, err := l.runAcquire(t.Context(), again, false); err != nil || got.code != codeDone {
				t.Errorf("once it is free: %d, %v", got.code, err)
			}
		}
	})
}
