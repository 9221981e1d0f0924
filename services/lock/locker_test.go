package lock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

var alice = models.Holder{UserID: "1", Email: "alice@example.com", Reason: "budget"}
var bob = models.Holder{UserID: "2", Email: "bob@example.com"}

// lockers are n instances on one Redis.
func lockers(t *testing.T, server *servicestest.RedisServer, n int, opt lock.Options) []*lock.Locker {
	t.Helper()
	var all []*lock.Locker
	for range n {
		redis := redistest.Patient(t, server.Addr)
		all = append(all, lock.New(redis, opt))
	}
	return all
}

func request(resource string, holder models.Holder) lock.Request {
	return lock.Request{Resource: resource, Holder: holder, TTL: 10 * time.Second}
}

func mustAcquire(t *testing.T, l *lock.Locker, req lock.Request) lock.Lock {
	t.Helper()
	taken, err := l.TryAcquire(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

// mustAcquireInRedis is mustAcquire for an instance that goes on without Redis: on a
// busy machine that can begin before the test takes Redis away.
func mustAcquireInRedis(t *testing.T, l *lock.Locker, req lock.Request) lock.Lock {
	t.Helper()
	var taken lock.Lock
	servicestest.Eventually(t, func() bool {
		taken = mustAcquire(t, l, req)
		if taken.Degraded {
			_, _ = l.Release(t.Context(), taken.Claim)
		}
		return !taken.Degraded
	}, "no lock in Redis")
	return taken
}

func TestLockExcludesAcrossInstances(t *testing.T) {
	server := servicestest.StartRedis(t)
	all := lockers(t, server, 2, lock.Options{})
	taken := mustAcquire(t, all[0], request("process:1", alice))
	if taken.Fence == nil || taken.Degraded || taken.Repeated || taken.TTL > 10*time.Second || taken.TTL < 9*time.Second {
		t.Errorf("lock = %+v", taken)
	}
	_, err := all[1].TryAcquire(t.Context(), request("process:1", bob))
	var refused *models.NotAcquiredError
	if !errors.As(err, &refused) || !errors.Is(err, models.ErrNotAcquired) {
		t.Fatalf("second acquire: %v", err)
	}
	if s := refused.Status; s.Holder.Email != alice.Email || s.Holder.Reason != "budget" || s.TTL <= 0 || s.TTL > 10*time.Second {
		t.Errorf("holder told = %+v", s)
	}
	if _, err := all[1].Release(t.Context(), taken.Claim); err != nil { // any instance, with the token
		t.Fatal(err)
	}
	second := mustAcquire(t, all[1], request("process:1", bob))
	if *second.Fence <= *taken.Fence {
		t.Errorf("fence %d after %d", *second.Fence, *taken.Fence)
	}
	if _, err := all[0].Release(t.Context(), taken.Claim); !errors.Is(err, models.ErrNotHeld) {
		t.Errorf("a finished lock released its successor: %v", err)
	}
}

func TestLockScriptsOnlyServeTheRightToken(t *testing.T) {
	for _, backend := range []string{"redis-server", "embedded"} {
		t.Run(backend, func(t *testing.T) {
			l := lock.New(redistest.Of(t, backend), lock.Options{})
			taken := mustAcquire(t, l, request("process:7", alice))
			forged := taken.Claim
			forged.Token = lock.NewToken()
			var notHeld *models.NotHeldError
			if _, err := l.Extend(t.Context(), forged, time.Minute); !errors.As(err, &notHeld) || notHeld.Status.Holder.UserID != "1" {
				t.Errorf("extend with a forged token: %v", err)
			}
			if _, err := l.Release(t.Context(), forged); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("release with a forged token: %v", err)
			}
			if _, err := l.Check(t.Context(), forged); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("check of a forged token: %v", err)
			}
			if _, err := l.Check(t.Context(), taken.Claim); err != nil {
				t.Errorf("check of the holder: %v", err)
			}
			extended, err := l.Extend(t.Context(), taken.Claim, time.Minute)
			if err != nil || extended.TTL < 59*time.Second || *extended.Fence != *taken.Fence {
				t.Errorf("extend: %+v, %v", extended, err)
			}
			other := taken.Fence
			wrong := *other + 1
			if _, err := l.ForceRelease(t.Context(), "process:7", &wrong); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("force with another fence: %v", err)
			}
			was, err := l.ForceRelease(t.Context(), "process:7", taken.Fence)
			if err != nil || was.Holder.Email != alice.Email {
				t.Errorf("force: %+v, %v", was, err)
			}
			if _, err := l.ForceRelease(t.Context(), "process:7", nil); !errors.Is(err, models.ErrNotFound) {
				t.Errorf("force of a free lock: %v", err)
			}
			status, err := l.Status(t.Context(), "process:7")
			if err != nil || status.Held || status.TTL != 0 {
				t.Errorf("status after force: %+v, %v", status, err)
			}
		})
	}
}

func TestLockSameTokenSameGrant(t *testing.T) {
	l := lockers(t, servicestest.StartRedis(t), 1, lock.Options{})[0]
	req := request("process:1", alice)
	req.Token = lock.NewToken()
	first := mustAcquire(t, l, req)
	again := mustAcquire(t, l, req)
	if again.Grant != first.Grant || *again.Fence != *first.Fence || !again.Repeated || again.TTL > first.TTL {
		t.Errorf("first %+v, again %+v", first, again)
	}
	if note, err := l.Metadata(t.Context(), first, "one"); note != "one" || err != nil {
		t.Errorf("note = %q, %v", note, err)
	}
	if note, err := l.Metadata(t.Context(), again, "two"); note != "one" || err != nil {
		t.Errorf("second note = %q, %v: the first one stays", note, err)
	}
	if again := mustAcquire(t, l, req); again.Metadata != "one" {
		t.Errorf("repeated acquire brings note %q", again.Metadata)
	}
	if _, err := l.Release(t.Context(), first.Claim); err != nil {
		t.Fatal(err)
	}
	next := mustAcquire(t, l, req)
	if next.Grant == first.Grant {
		t.Error("a grant came back after its release")
	}
	if _, err := l.Check(t.Context(), first.Claim); !errors.Is(err, models.ErrNotHeld) {
		t.Errorf("the old grant passes with the reused token: %v", err)
	}
}

// Of two requests with one token the first waits, and its instance is cut off when its
// is served: the second has that very grant.
func TestLockSameTokenConfirmsTheGrantOfAWaiter(t *testing.T) {
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	cutOff, l := lock.New(redistest.New(t, proxy.Addr), lock.Options{}), lockers(t, server, 1, lock.Options{})[0]
	held := mustAcquire(t, l, request("process:1", alice))
	req := request("process:1", bob)
	req.Token = lock.NewToken()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = cutOff.Acquire(ctx, req) })
	defer wg.Wait()
	defer cancel()
	waitFor(t, l, 1)
	proxy.Stall()
	if _, err := l.Release(t.Context(), held.Claim); err != nil {
		t.Fatal(err)
	}
	taken := mustAcquire(t, l, req)
	if _, err := l.Check(t.Context(), taken.Claim); err != nil {
		t.Errorf("the grant answered is not there: %v", err)
	}
}

func TestLockExpiresAndIsCapped(t *testing.T) {
	for _, backend := range []string{"redis-server", "embedded"} {
		t.Run(backend, func(t *testing.T) {
			l := lock.New(redistest.Of(t, backend), lock.Options{MaxHold: 600 * time.Millisecond})
			req := request("process:1", alice)
			req.TTL = 400 * time.Millisecond
			taken := mustAcquire(t, l, req)
			extended, err := l.Extend(t.Context(), taken.Claim, time.Hour)
			if err != nil || extended.TTL > 600*time.Millisecond {
				t.Fatalf("extended past MaxHold: %v, %v", extended.TTL, err)
			}
			servicestest.Within(t, 2*time.Second, func() bool {
				_, err := l.TryAcquire(t.Context(), request("process:1", bob))
				return err == nil
			}, "an expired lock is not free")
			if _, err := l.Extend(t.Context(), taken.Claim, time.Second); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("extend after expiry: %v", err)
			}
		})
	}
}

// A TTL of nothing or less is the default: it is no lock without a lease, and no error
// of a script.
func TestLockTTLOfNothing(t *testing.T) {
	l := lockers(t, servicestest.StartRedis(t), 1, lock.Options{})[0]
	for _, ttl := range []time.Duration{0, -time.Second} {
		req := request("r", alice)
		req.TTL = ttl
		taken := mustAcquire(t, l, req)
		if taken.TTL != lock.DefaultTTL {
			t.Errorf("%v: locked for %v", ttl, taken.TTL)
		}
		if extended, err := l.Extend(t.Context(), taken.Claim, ttl); err != nil || extended.TTL != lock.DefaultTTL {
			t.Errorf("%v: extended for %v, %v", ttl, extended.TTL, err)
		}
		if _, err := l.Release(t.Context(), taken.Claim); err != nil {
			t.Error(err)
		}
	}
}

func TestLockList(t *testing.T) {
	all := lockers(t, servicestest.StartRedis(t), 2, lock.Options{})
	var want []string
	for i := range 45 {
		resource := fmt.Sprintf("process:%d", i)
		mustAcquire(t, all[i%2], request(resource, alice))
		want = append(want, resource)
	}
	var got []string
	page := models.Page{Limit: 10}
	for {
		locks, degraded, err := all[0].List(t.Context(), page)
		if err != nil || degraded || len(locks.Items) > 10 {
			t.Fatalf("list: %d items, %v, %v", len(locks.Items), degraded, err)
		}
		for _, item := range locks.Items {
			got = append(got, item.Resource)
			if item.Holder.Email != alice.Email || item.Fence == nil || item.TTL <= 0 {
				t.Errorf("item %+v", item)
			}
		}
		if locks.NextCursor == nil {
			break
		}
		page.Cursor = *locks.NextCursor
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("listed %d of %d: %v", len(got), len(want), got)
	}
	for _, cursor := range []string{"x", "e30", strings.Repeat("A", 40)} {
		if _, _, err := all[0].List(t.Context(), models.Page{Limit: 1, Cursor: cursor}); !errors.Is(err, models.ErrBadCursor) {
			t.Errorf("cursor %q: %v", cursor, err)
		}
	}
	if err := all[0].ReleaseUser(t.Context(), alice.UserID); err != nil {
		t.Fatal(err)
	}
	if locks, _, _ := all[1].List(t.Context(), models.Page{Limit: 200}); len(locks.Items) != 0 {
		t.Errorf("%d locks left after ReleaseUser", len(locks.Items))
	}
}

func TestLockQueueIsFirstComeFirstServed(t *testing.T) {
	server := servicestest.StartRedis(t)
	all := lockers(t, server, 3, lock.Options{})
	held := mustAcquire(t, all[0], request("process:1", alice))
	const waiters = 6
	order := make(chan int, waiters)
	var wg sync.WaitGroup
	for i := range waiters {
		wg.Go(func() {
			l := all[i%3]
			taken, err := l.Acquire(t.Context(), request("process:1", bob))
			if err != nil {
				t.Error(err)
				return
			}
			order <- i
			if _, err := l.Release(t.Context(), taken.Claim); err != nil {
				t.Error(err)
			}
		})
		servicestest.Within(t, time.Second, func() bool {
			s, err := all[0].Status(t.Context(), "process:1")
			return err == nil && s.Waiting == i+1
		}, "waiter did not join")
	}
	if _, err := all[0].Release(t.Context(), held.Claim); err != nil {
		t.Fatal(err)
	}
	// A newcomer never overtakes the queue: it is granted to the head in the same step.
	if _, err := all[0].TryAcquire(t.Context(), request("process:1", alice)); !errors.Is(err, models.ErrNotAcquired) {
		t.Errorf("a newcomer overtook the queue: %v", err)
	}
	wg.Wait()
	close(order)
	want := 0
	for got := range order {
		if got != want {
			t.Errorf("waiter %d served, want %d", got, want)
		}
		want++
	}
	if keys := server.Do("KEYS", "*queue*"); keys != "" {
		t.Errorf("left behind: %s", keys)
	}
}

func TestLockWaiterThatLeavesGivesUpItsPlace(t *testing.T) {
	all := lockers(t, servicestest.StartRedis(t), 2, lock.Options{})
	held := mustAcquire(t, all[0], request("process:1", alice))
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	_, err := all[1].Acquire(ctx, request("process:1", bob))
	var refused *models.NotAcquiredError
	if !errors.As(err, &refused) || refused.Status.Holder.UserID != alice.UserID || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("given up: %v", err)
	}
	if s, err := all[0].Status(t.Context(), "process:1"); err != nil || s.Waiting != 0 {
		t.Errorf("still %d waiting, %v", s.Waiting, err)
	}
	if _, err := all[0].Release(t.Context(), held.Claim); err != nil {
		t.Fatal(err)
	}
	mustAcquire(t, all[0], request("process:1", alice))
}

func TestLockContention(t *testing.T) {
	all := lockers(t, servicestest.StartRedis(t), 4, lock.Options{})
	counter, fences := 0, []int64{} // guarded by the lock itself: -race would tell
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			err := all[i%4].WithLock(t.Context(), request("process:1", alice), func(_ context.Context, taken lock.Lock) error {
				counter++
				fences = append(fences, *taken.Fence)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if counter != 16 || !slices.IsSorted(fences) || len(slices.Compact(fences)) != 16 {
		t.Errorf("counter %d, fences %v", counter, fences)
	}
}
