package lock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

var (
	alice = models.Holder{UserID: "1", Email: "alice@example.com", Reason: "budget"}
	bob   = models.Holder{UserID: "2", Email: "bob@example.com"}
)

const (
	// patient is the timeout of calls to Redis where no test freezes it: a busy machine is no outage.
	patient = 10 * time.Second
	// impatient is that of an instance whose Redis freezes: a call that meets that takes so long.
	impatient = 300 * time.Millisecond
)

// at is an instance on the Redis at addr.
func at(t testing.TB, addr string, timeout time.Duration, opt Options) *Locker {
	t.Helper()
	opt.Logger = cmp.Or(opt.Logger, redistest.Quiet())
	return New(redistest.At(t, addr, redis.Options{Timeout: timeout}), opt)
}

// instances are n patient ones on one Redis.
func instances(t testing.TB, server *servicestest.RedisServer, n int) (all []*Locker) {
	t.Helper()
	for range n {
		all = append(all, at(t, server.Addr, patient, Options{}))
	}
	return all
}

// openAt is a patient instance whose locks work without Redis.
func openAt(t testing.TB, addr string) *Locker {
	t.Helper()
	return at(t, addr, patient, Options{OnRedisDown: models.OnRedisDownOpen})
}

// apart is an instance behind a proxy of its own, which the test may cut.
type apart struct {
	*Locker
	t   testing.TB
	way *servicestest.Proxy
}

func openApart(t testing.TB, server *servicestest.RedisServer) apart {
	t.Helper()
	way := servicestest.NewProxy(t, server.Addr)
	return apart{openAt(t, way.Addr), t, way}
}

func (a apart) cut() {
	a.t.Helper()
	a.way.Cut()
	gone(a.t, a.Locker)
}

func (a apart) restore() {
	a.t.Helper()
	a.way.Restore()
	back(a.t, a.Locker)
}

// gone waits until the instance works without Redis.
func gone(t testing.TB, l *Locker) {
	t.Helper()
	servicestest.Eventually(t, func() bool { return !l.redis.Available() }, "Redis still counts as available")
}

// back waits until Redis has answered the instance again, and what it had for Redis is done.
func back(t testing.TB, l *Locker) {
	t.Helper()
	servicestest.Eventually(t, l.redis.Available, "Redis does not count as available")
}

func request(resource string, holder models.Holder) Request {
	return Request{Resource: resource, Holder: holder, TTL: time.Minute}
}

// requestFor is request with another lease.
func requestFor(resource string, holder models.Holder, ttl time.Duration) Request {
	return Request{Resource: resource, Holder: holder, TTL: ttl}
}

func take(t testing.TB, l *Locker, req Request) Lock {
	t.Helper()
	taken, err := l.TryAcquire(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

// takeInRedis is take for an impatient instance: one that goes on without Redis may do so on a busy
// machine before the test takes Redis away.
func takeInRedis(t testing.TB, l *Locker, req Request) (taken Lock) {
	t.Helper()
	servicestest.Eventually(t, func() bool {
		var err error
		if taken, err = l.TryAcquire(t.Context(), req); errors.Is(err, models.ErrUnavailable) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		if taken.Degraded {
			_, _ = l.Release(t.Context(), taken.Claim)
		}
		return !taken.Degraded
	}, "no lock in Redis")
	return taken
}

func giveBack(t testing.TB, l *Locker, taken Lock) {
	t.Helper()
	if _, err := l.Release(t.Context(), taken.Claim); err != nil {
		t.Fatal(err)
	}
}

func force(t testing.TB, l *Locker, resource string) {
	t.Helper()
	if _, err := l.ForceRelease(t.Context(), resource, nil); err != nil {
		t.Fatal(err)
	}
}

func extend(t testing.TB, l *Locker, taken Lock, ttl time.Duration) Lock {
	t.Helper()
	extended, err := l.Extend(t.Context(), taken.Claim, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return extended
}

// endings are the ways to end a lock by a call.
var endings = map[string]func(*testing.T, *Locker, Lock){
	"released": func(t *testing.T, l *Locker, taken Lock) { giveBack(t, l, taken) },
	"forced":   func(t *testing.T, l *Locker, taken Lock) { force(t, l, taken.Resource) },
}

// queueFor lets a waiter queue behind those that wait already; the channel gets its lock.
func queueFor(ctx context.Context, t testing.TB, l *Locker, req Request) <-chan Lock {
	t.Helper()
	before := l.mustStatus(t, req.Resource).Waiting
	granted := make(chan Lock, 1)
	go func() {
		defer close(granted)
		taken, err := l.Acquire(ctx, req)
		if err == nil {
			granted <- taken
		} else if ctx.Err() == nil {
			t.Errorf("a waiter: %v", err)
		}
	}()
	waiting(t, l, req.Resource, before+1)
	return granted
}

// waiting waits until so many wait for a lock.
func waiting(t testing.TB, l *Locker, resource string, want int) {
	t.Helper()
	servicestest.Eventually(t, func() bool {
		s, err := l.Status(t.Context(), resource)
		return err == nil && s.Waiting == want
	}, fmt.Sprintf("not %d waiting", want))
}

func (l *Locker) mustStatus(t testing.TB, resource string) models.LockStatus {
	t.Helper()
	s, err := l.Status(t.Context(), resource)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantFree wants a lock to have no holder.
func wantFree(t testing.TB, l *Locker, resource string) {
	t.Helper()
	if s, err := l.Status(t.Context(), resource); err != nil || s.Held {
		t.Errorf("%s is held without a holder: %+v, %v", resource, s, err)
	}
}

// wantHolder wants a lock to be its holder's, as Redis answers.
func wantHolder(t testing.TB, l *Locker, taken Lock) {
	t.Helper()
	if degraded, err := l.Check(t.Context(), taken.Claim); err != nil || degraded {
		t.Errorf("%s is not its holder's: degraded %t, %v", taken.Resource, degraded, err)
	}
}

// wantRefused wants a lock to be another's.
func wantRefused(t testing.TB, l *Locker, resource string) models.LockStatus {
	t.Helper()
	var refused *models.NotAcquiredError
	if taken, err := l.TryAcquire(t.Context(), request(resource, bob)); !errors.As(err, &refused) {
		t.Fatalf("%s is not refused: %+v, %v", resource, taken, err)
	}
	return refused.Status
}

// observed waits until an instance knows the epoch of a lock's shard, as its heartbeats bring it.
func observed(t testing.TB, l *Locker, resource string) {
	t.Helper()
	servicestest.Eventually(t, func() bool { return l.shards.get(shardOf(resource)).epoch != "" }, "no heartbeat of the shard")
}

// leftInRedis is the time left of a lock, as Redis has it; less than 0 if it is not there.
func leftInRedis(t testing.TB, server *servicestest.RedisServer, l *Locker, resource string) time.Duration {
	t.Helper()
	left, err := strconv.Atoi(strings.TrimSpace(server.Do("PTTL", l.keys.of(resource)[0])))
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(left) * time.Millisecond
}

// known are the locks that an instance knows to be held.
func (l *Locker) known() []entry { return l.table.living(time.Now(), anyLock) }

// inSync reports whether Redis knows all that an instance granted or extended without it.
func (l *Locker) inSync() bool {
	return l.redis.Available() && len(l.table.living(time.Now(), (*entry).degraded)) == 0
}

// inShard are so many resources of a shard.
func inShard(shard, n int) (resources []string) {
	for i := 0; len(resources) < n; i++ {
		if resource := fmt.Sprintf("process:%d", i); shardOf(resource) == shard {
			resources = append(resources, resource)
		}
	}
	return resources
}

// onBoth runs a test on a real server and on the one inside the process, whose Lua is another.
func onBoth(t *testing.T, test func(t *testing.T, rdb *redis.Client)) {
	for _, backend := range []string{"redis-server", "embedded"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			test(t, redistest.Of(t, backend))
		})
	}
}

// endLeases lets Redis forget the locks of a resource's shard as it does when their leases end by
// themselves.
func endLeases(t testing.TB, server *servicestest.RedisServer, l *Locker, resource string) {
	t.Helper()
	const end = `local t = redis.call('TIME')
		local grants = redis.call('ZRANGE', KEYS[1], 0, -1)
		for _, grant in ipairs(grants) do
			redis.call('ZADD', KEYS[1], math.floor(t[1] * 1000 + t[2] / 1000) - 1, grant)
		end
		redis.call('DEL', unpack(redis.call('KEYS', ARGV[1])))
		return #grants`
	index := l.keys.of(resource)[2]
	if n := server.Do("EVAL", end, "1", index, strings.TrimSuffix(index, "locks")+"lock:*"); n == "0" {
		t.Fatal("there is no lease to end")
	}
}
