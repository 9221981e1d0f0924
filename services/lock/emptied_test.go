package lock

import (
	"slices"
	"strings"
	"testing"

	"gatehouse/services/servicestest"
)

// However the server forgets: while holders reassert, twice while an instance is away, or with a
// failover back to what was before. No lock of many in each shard is lost.
func TestStaysWhileTheServerForgets(t *testing.T) {
	t.Parallel()
	flush := func(t *testing.T, server *servicestest.RedisServer) {
		t.Helper()
		server.Do("FLUSHALL")
		servicestest.Eventually(t, func() bool { return server.Do("KEYS", "*}lock:*") != "" }, "no lock is reasserted")
	}
	for name, forget := range map[string]func(t *testing.T, a, b apart, server, replica *servicestest.RedisServer) (more []Lock){
		"in the middle of the reassertions": func(t *testing.T, _, _ apart, server, _ *servicestest.RedisServer) []Lock {
			for range 4 {
				flush(t, server)
			}
			return nil
		},
		"twice while an instance is away": func(t *testing.T, a, _ apart, server, _ *servicestest.RedisServer) []Lock {
			a.cut()
			flush(t, server)
			flush(t, server)
			a.restore()
			return nil
		},
		"and a failover goes back to the epoch before": func(t *testing.T, a, b apart, server, replica *servicestest.RedisServer) []Lock {
			replica.Promote()
			flush(t, server)
			servicestest.Eventually(t, func() bool { return server.Do("KEYS", "*}forgot") == "" }, "locks are kept for holders for ever")
			more := holdMany(t, []*Locker{a.Locker, b.Locker}, "more", 50) // which the replica never had
			a.way.Retarget(replica.Addr)
			b.way.Retarget(replica.Addr)
			return more
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, replica := servicestest.StartRedis(t), servicestest.StartRedis(t)
			replica.Follow(server)
			a, b := openApart(t, server), openApart(t, server)
			all := []*Locker{a.Locker, b.Locker}
			acquainted(t, all...)
			held := holdMany(t, all, "many", 150)
			servicestest.Eventually(t, func() bool { return strings.Count(replica.Do("KEYS", "*}lock:*"), "lock:") == len(held) }, "the replica does not follow")
			held = slices.Concat(held, forget(t, a, b, server, replica))
			servicestest.Eventually(t, func() bool { return stillHeld(t, b.Locker, held) == len(held) }, "a lock is lost")
			for _, taken := range held {
				wantHolder(t, a.Locker, taken)
			}
		})
	}
}
