package lock

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// waiters are the addresses of those who wait, as one instance sees it.
func (l *Locker) waitersFor(t testing.TB, resource string, most int) (status models.LockStatus, addresses []string) {
	t.Helper()
	status, queue, err := l.Inspect(t.Context(), resource, most)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range queue {
		addresses = append(addresses, w.By.Email)
		if time.Since(w.Since).Abs() > time.Minute || i > 0 && w.Since.Before(queue[i-1].Since) {
			t.Errorf("%s waits since %v", w.By.Email, w.Since)
		}
	}
	return status, addresses
}

func TestInspect(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	all := instances(t, server, 2)
	carol := models.Holder{UserID: "3", Email: "carol@example.com", Reason: "one: two"}

	t.Run("a free lock has no queue", func(t *testing.T) {
		if status, queue := all[0].waitersFor(t, "free", 10); status.Held || len(queue) != 0 {
			t.Errorf("%+v, %v", status, queue)
		}
	})

	t.Run("names who waits at any instance, first come first", func(t *testing.T) {
		held := take(t, all[0], request("r", alice))
		ctx, leave := context.WithCancel(t.Context())
		first := queueFor(ctx, t, all[1], request("r", bob))
		second := queueFor(ctx, t, all[0], request("r", carol))
		third := queueFor(ctx, t, all[1], request("r", models.Holder{}))
		for _, l := range all {
			status, queue := l.waitersFor(t, "r", 10)
			if status.Grant != held.Grant || status.Holder.Email != alice.Email || *status.Fence != *held.Fence || status.Waiting != 3 || status.ActiveAt.IsZero() {
				t.Errorf("%+v", status)
			}
			if !slices.Equal(queue, []string{bob.Email, carol.Email, ""}) {
				t.Errorf("%v wait", queue)
			}
			if status, queue := l.waitersFor(t, "r", 2); len(queue) != 2 || status.Waiting != 3 {
				t.Errorf("two of the %d waiters: %v", status.Waiting, queue)
			}
		}
		leave()
		for _, left := range []<-chan Lock{first, second, third} {
			<-left
		}
		if status, queue := all[0].waitersFor(t, "r", 10); status.Waiting != 0 || len(queue) != 0 {
			t.Errorf("%v wait, and have left: %+v", queue, status)
		}
	})

	t.Run("leaves out those of an instance that has been silent for long", func(t *testing.T) {
		take(t, all[0], request("silent", alice))
		ctx, leave := context.WithCancel(t.Context())
		granted := queueFor(ctx, t, all[1], request("silent", bob))
		keys := all[0].keys.of("silent")
		server.Do("ZADD", keys[1], "1", "dead")
		server.Do("ZADD", keys[1], "2", "forgotten") // without a request
		prefix := keys[2][:len(keys[2])-len("locks")]
		server.Do("HSET", prefix+"waiters:silent", "dead", `{"grant":"x","instance":"crashed"}`)
		server.Do("ZADD", prefix+"instances", "1000", "crashed")
		if status, queue := all[0].waitersFor(t, "silent", 10); status.Waiting != 1 || !slices.Equal(queue, []string{bob.Email}) {
			t.Errorf("%v wait: %+v", queue, status)
		}
		leave()
		<-granted
	})
}

// Without Redis an instance knows its own waiters, and none for a lock of which it knows nothing.
func TestInspectWithoutRedis(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	a, other := openApart(t, server), openAt(t, server.Addr)
	take(t, a.Locker, request("r", alice))
	take(t, other, request("others", bob))
	a.cut()
	ctx, leave := context.WithCancel(t.Context())
	granted := queueFor(ctx, t, a.Locker, request("r", bob))
	status, queue := a.waitersFor(t, "r", 10)
	if !status.Degraded || status.Holder.Email != alice.Email || status.Waiting != 1 || !slices.Equal(queue, []string{bob.Email}) {
		t.Errorf("%v wait: %+v", queue, status)
	}
	if status, queue := a.waitersFor(t, "others", 10); !status.Degraded || status.Held || len(queue) != 0 {
		t.Errorf("it cannot know of another's lock: %+v, %v", status, queue)
	}
	if _, _, err := cutOff(t, Options{}).Inspect(t.Context(), "r", 10); !errors.Is(err, models.ErrUnavailable) {
		t.Errorf("closed: %v", err)
	}
	leave()
	<-granted

	t.Run("one that has left without a word waits no more", func(t *testing.T) {
		table, now := newLocalTable(time.Hour, time.Now), time.Now()
		for _, holder := range []models.Holder{alice, bob} {
			table.acquire(now, Claim{Resource: "r", Grant: holder.UserID, Token: holder.UserID}, holder, time.Minute, true)
		}
		for at, want := range map[time.Time]int{now: 1, now.Add(2 * waiterAlive): 0} {
			if status, queue := table.inspect(at, "r"); !status.Held || status.Waiting != want || len(queue) != want {
				t.Errorf("after %v: %+v, %v", at.Sub(now), status, queue)
			}
		}
	})
}
