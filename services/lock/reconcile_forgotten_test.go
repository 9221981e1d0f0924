package lock

import (
	"fmt"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// After a server has forgotten, new locks in the shard do not hide that an old one
// is missing.
func TestLockForgottenBesideNewOnes(t *testing.T) {
	server := servicestest.StartRedis(t)
	l, other := openLockerAt(t, server.Addr), openLockerAt(t, server.Addr)
	inShard := func(n int) (resources []string) {
		for i := 0; len(resources) < n; i++ {
			if resource := fmt.Sprintf("process:%d", i); shardOf(resource) == 3 {
				resources = append(resources, resource)
			}
		}
		return resources
	}(21)
	acquire := func(l *Locker, resource string) Lock {
		t.Helper()
		lock, err := l.TryAcquire(t.Context(), Request{Resource: resource})
		if err != nil {
			t.Fatal(err)
		}
		return lock
	}
	old := acquire(l, inShard[0])
	server.Do("FLUSHALL")
	fresh := openLockerAt(t, server.Addr) // it does not know that there was anything: others wait
	for _, resource := range inShard[1:] {
		acquire(fresh, resource)
	}
	servicestest.Within(t, time.Second, func() bool {
		s, err := other.Status(t.Context(), old.Resource)
		return err == nil && s.Held && s.Grant == old.Grant
	}, "the forgotten lock is not claimed")
}
