package lock_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// However the server forgets: while holders reassert, twice while an instance is away, or
// with a failover back to what was before. No lock of many in each shard is lost.
func TestLocksStayWhileTheServerForgets(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]func(t *testing.T, f *forgetting, replica *servicestest.RedisServer){
		"in the middle of the claims": func(_ *testing.T, f *forgetting, _ *servicestest.RedisServer) {
			for range 12 {
				f.server.Do("FLUSHALL")
				pause(f.t.Context(), 90*time.Millisecond)
			}
		},
		"twice while an instance is away": func(t *testing.T, f *forgetting, _ *servicestest.RedisServer) {
			f.proxies[0].Cut()
			servicestest.Eventually(t, func() bool { return !f.redis[0].Available() }, "Redis still counts as available")
			for range 2 {
				f.server.Do("FLUSHALL")
				claimed(t, f.server)
			}
			f.proxies[0].Restore()
		},
		"and a failover goes back to the epoch before": func(t *testing.T, f *forgetting, replica *servicestest.RedisServer) {
			replica.Promote()
			f.server.Do("FLUSHALL")
			claimed(t, f.server)
			servicestest.Eventually(t, func() bool { return f.server.Do("KEYS", "*}forgot") == "" }, "locks are kept for holders for ever")
			f.more = holdMany(t, f.lockers, "more", 50) // which the replica never had
			for _, proxy := range f.proxies {
				proxy.Retarget(replica.Addr)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &forgetting{field: &field{t: t, server: servicestest.StartRedis(t)}}
			replica := servicestest.StartRedis(t)
			replica.Follow(f.server)
			for range 2 {
				proxy := servicestest.NewProxy(t, f.server.Addr)
				rdb := redistest.At(t, proxy.Addr, redis.Options{Timeout: time.Second})
				f.proxies, f.redis = append(f.proxies, proxy), append(f.redis, rdb)
				f.lockers = append(f.lockers, lock.New(rdb, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: redistest.Quiet()}))
			}
			for _, l := range f.lockers {
				servicestest.Eventually(t, func() bool { return !l.Alone() }, "the instances do not know of each other")
			}
			held := holdMany(t, f.lockers, "many", 150)
			servicestest.Eventually(t, func() bool { return strings.Count(replica.Do("KEYS", "*}lock:*"), "lock:") == len(held) }, "the replica does not follow")
			forget(t, f, replica)
			all := slices.Concat(held, f.more)
			servicestest.Eventually(t, func() bool { return stillHeld(t, f.lockers[1], all) == len(all) }, "a lock is lost")
			for i, taken := range all {
				if _, err := f.lockers[i%2].Check(t.Context(), taken.Claim); err != nil {
					t.Errorf("%s: %v", taken.Resource, err)
				}
			}
		})
	}
}

type forgetting struct {
	*field
	more []lock.Lock
}

// claimed waits until holders have begun to reassert.
func claimed(t *testing.T, server *servicestest.RedisServer) {
	t.Helper()
	servicestest.Eventually(t, func() bool { return server.Do("KEYS", "*}lock:*") != "" }, "no lock is claimed")
}
