package lock

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// TestOwedEnds: an instance that could not tell Redis of an end tells it before it takes an answer
// about that lock, also if it is the first call that gets through.
func TestOwedEnds(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	l := openAt(t, server.Addr)
	// The heartbeats tell Redis, too, but later: what is right at once is so for all of these.
	const locks = 20
	each := func(t *testing.T, check func(t *testing.T, over, now Lock)) {
		t.Helper()
		for i := range locks {
			resource := fmt.Sprintf("%s %d", t.Name(), i)
			over := take(t, l, request(resource, alice))
			// What is left of a release without an answer, and of the next lock.
			l.table.put(op{kind: opTombstone, claim: over.Claim})
			l.table.release(over.Claim)
			a := l.newAttempt(request(resource, bob))
			now, _ := l.table.acquire(time.Now(), a.claim(), bob, time.Minute, false)
			check(t, over, now)
		}
	}

	t.Run("the next holder without Redis is its holder there", func(t *testing.T) {
		each(t, func(t *testing.T, _, now Lock) {
			if degraded, err := l.Check(t.Context(), now.Claim); err != nil || degraded {
				t.Errorf("check: %v, %t", err, degraded)
			}
			giveBack(t, l, now)
		})
		each(t, func(t *testing.T, _, now Lock) {
			if _, err := l.Extend(t.Context(), now.Claim, time.Minute); err != nil {
				t.Errorf("extend: %v", err)
			}
			giveBack(t, l, now)
		})
		each(t, func(t *testing.T, _, now Lock) {
			if degraded, err := l.Release(t.Context(), now.Claim); err != nil || degraded {
				t.Errorf("release: %v, %t", err, degraded)
			}
			if status, err := l.Status(t.Context(), now.Resource); err != nil || status.Held {
				t.Errorf("given back: %+v, %v", status, err)
			}
		})
	})

	t.Run("a lock that was given back is free", func(t *testing.T) {
		each(t, func(t *testing.T, _, now Lock) {
			l.table.release(now.Claim)
			if status, err := l.Status(t.Context(), now.Resource); err != nil || status.Held {
				t.Errorf("%+v, %v", status, err)
			}
		})
		each(t, func(t *testing.T, _, now Lock) {
			l.table.release(now.Claim)
			giveBack(t, l, take(t, l, request(now.Resource, bob)))
		})
	})

	t.Run("a claim that was given back holds nothing", func(t *testing.T) {
		each(t, func(t *testing.T, over, now Lock) {
			l.table.release(now.Claim)
			if _, err := l.Check(t.Context(), over.Claim); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("check: %v", err)
			}
			if _, err := l.Extend(t.Context(), over.Claim, time.Minute); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("extend: %v", err)
			}
		})
	})

	t.Run("an end that another call tells meanwhile makes no answer of what Redis had", func(t *testing.T) {
		for i := range 20 * locks {
			resource := fmt.Sprint("meanwhile ", i)
			over := take(t, l, request(resource, alice))
			l.table.put(op{kind: opTombstone, claim: over.Claim})
			l.table.release(over.Claim)
			told := make(chan struct{})
			go func() {
				defer close(told)
				l.flush(t.Context())
			}()
			next, err := l.TryAcquire(t.Context(), request(resource, bob))
			if err != nil {
				t.Errorf("the next lock: %v", err)
			}
			<-told
			_, _ = l.Release(t.Context(), next.Claim)
		}
	})

	t.Run("a lock that was given back does not count as held", func(t *testing.T) {
		carol := models.Holder{UserID: "carol"}
		for i := range locks {
			over := take(t, l, request(fmt.Sprint("counted ", i), carol))
			l.table.put(op{kind: opTombstone, claim: over.Claim})
			l.table.release(over.Claim)
			if held, complete := l.grantsOf(t.Context(), carol.UserID); len(held) > 0 || !complete {
				t.Errorf("%d locks of a user who holds none", len(held))
			}
			if _, err := l.tellEnd(t.Context(), over.Grant); err != nil {
				t.Fatal(err)
			}
		}
	})

	t.Run("an end that cannot be told makes no answer of what Redis has", func(t *testing.T) {
		server.Do("ACL", "SETUSER", "default", "-del") // which a release needs, and a refusal does not
		defer back(t, l)
		defer server.Do("ACL", "SETUSER", "default", "+del")
		for i := range locks {
			resource := fmt.Sprint("untold ", i)
			over, degraded := take(t, l, request(resource, alice)), false
			l.table.put(op{kind: opTombstone, claim: over.Claim})
			l.table.release(over.Claim)
			if _, err := l.Check(t.Context(), over.Claim); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("check of what was given back: %v", err)
			}
			next, err := l.TryAcquire(t.Context(), request(resource, bob))
			if err != nil || !next.Degraded {
				t.Errorf("the next lock: degraded %t, %v", next.Degraded, err)
			}
			if degraded, err = l.Check(t.Context(), next.Claim); err != nil || !degraded {
				t.Errorf("check: degraded %t, %v", degraded, err)
			}
		}
	})

	t.Run("a reassertion that comes after the release brings nothing back", func(t *testing.T) {
		for i := range locks {
			req := request(fmt.Sprint("late ", i), alice)
			first := l.newAttempt(req)
			l.table.acquire(time.Now(), first.claim(), alice, time.Minute, false)
			known, _ := l.table.find(first.claim())
			giveBack(t, l, known.lock)
			req.Token = first.req.Token
			late := &attempt{l: l, req: req, grant: first.grant, block: 1, reasserts: &known}
			if got, err := l.runAcquire(t.Context(), late, false); err != nil || got.code != codeRefused {
				t.Errorf("it is answered with %d, %v", got.code, err)
			}
			giveBack(t, l, take(t, l, request(req.Resource, bob)))
		}
	})
}
