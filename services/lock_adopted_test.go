package services

import (
	"log/slog"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// An instance that is cut off takes over what it extends. What ended meanwhile where
// it was granted stays ended: it would be locked for nobody.
func TestLockAdoptedThenEndedElsewhereStaysEnded(t *testing.T) {
	for _, how := range []string{"release", "force"} {
		t.Run(how, func(t *testing.T) {
			server := servicestest.StartRedis(t)
			proxy := servicestest.NewProxy(t, server.Addr)
			granter, cutOff := openLockerAt(t, server.Addr), openLockerAt(t, proxy.Addr)
			lock, err := granter.TryAcquire(t.Context(), LockRequest{Resource: "process:1"})
			if err != nil {
				t.Fatal(err)
			}
			servicestest.Eventually(t, 5*time.Second, func() bool {
				cutOff.table.mu.Lock()
				defer cutOff.table.mu.Unlock()
				return cutOff.table.epochs[shardOf(lock.Resource)] != ""
			}, "no beat of the shard")
			proxy.Cut()
			servicestest.Eventually(t, time.Second, func() bool { return !cutOff.redis.Available() }, "Redis still counts as available")
			if _, err := cutOff.Extend(t.Context(), lock.LockClaim, time.Minute); err != nil {
				t.Fatal(err)
			}
			if how == "force" {
				_, err = granter.ForceRelease(t.Context(), lock.Resource, nil)
			} else {
				_, err = granter.Release(t.Context(), lock.LockClaim)
			}
			if err != nil {
				t.Fatal(err)
			}
			proxy.Restore()
			servicestest.Eventually(t, 5*time.Second, func() bool {
				return cutOff.redis.Available() && len(cutOff.table.alive()) == 0
			}, "the grant that was taken over is still believed")
			if s, err := granter.Status(t.Context(), lock.Resource); err != nil || s.Held {
				t.Errorf("locked for nobody: %+v, %v", s, err)
			}
		})
	}
}

func openLockerAt(t *testing.T, addr string) *Locker {
	t.Helper()
	return NewLocker(redisAt(t, addr, RedisOptions{}), &LockerOptions{OnRedisDown: models.OnRedisDownOpen, Logger: slog.New(slog.DiscardHandler)})
}
