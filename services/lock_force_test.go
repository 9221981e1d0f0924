package services

import (
	"context"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// A call whose connection is lost is sent again on another, and may have been
// executed both times. A force ends the lock that was there, not the next one too.
func TestLockForceThatIsSentTwiceEndsOneLock(t *testing.T) {
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	chief, l := openLockerAt(t, proxy.Addr), openLockerAt(t, server.Addr)
	request := func(user string) LockRequest {
		return LockRequest{Resource: "process:1", TTL: 10 * time.Second, Holder: models.Holder{UserID: user}}
	}
	answered := 0
	for range 8 {
		held, err := l.TryAcquire(t.Context(), request("1"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		next := make(chan Lock, 1)
		go func() {
			lock, _ := l.Acquire(ctx, request("2"))
			next <- lock
		}()
		servicestest.Eventually(t, 10*time.Second, func() bool {
			s, err := l.Status(t.Context(), "process:1")
			return err == nil && s.Waiting == 1 && chief.redis.Available() && chief.redis.lane.live.now()
		}, "nobody waits, or there are no two connections")
		proxy.LoseReplies(1)
		was, err := chief.ForceRelease(t.Context(), "process:1", nil)
		proxy.LoseReplies(0)
		if err != nil {
			_, err = l.Release(t.Context(), held.LockClaim) // perhaps it was not executed
		} else if answered++; *was.Fence != *held.Fence {
			t.Errorf("forced fence %d, not %d", *was.Fence, *held.Fence)
		}
		lock := <-next
		if _, checked := l.Check(t.Context(), lock.LockClaim); checked != nil {
			t.Errorf("the next holder: %v (release: %v)", checked, err)
		}
		cancel()
		if _, err := l.Release(t.Context(), lock.LockClaim); err != nil {
			t.Error(err)
		}
	}
	if answered == 0 {
		t.Error("no force was answered: nothing is proven")
	}
	t.Logf("%d of 8 were answered", answered)
}
