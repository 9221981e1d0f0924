package services_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

func TestLockDetails(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, d desk) {
		recorder := services.NewRecorder(d.store, redistest.Quiet())
		t.Cleanup(func() { _ = recorder.Close(context.Background()) })
		a := newAsking(t, d.with(services.ProcessesOptions{Ends: recorder, Protection: time.Nanosecond}))
		process := must(a.Create(t.Context(), a.alice, fields("Order paper")))
		resource := services.Resource(process.ID)
		take := func(user models.UserRef) services.ProcessLock {
			t.Helper()
			return must(a.Lock(t.Context(), user, process.ID, services.ProcessLockOptions{Reason: "reason"}))
		}

		t.Run("of a free lock are none", func(t *testing.T) {
			for _, free := range []string{resource, "process:4711", "process:x", "job:nightly"} {
				if _, err := a.LockDetails(t.Context(), free); !errors.Is(err, models.ErrNotFound) {
					t.Errorf("%s: %v", free, err)
				}
			}
		})

		t.Run("say who waits, and when the holder was active", func(t *testing.T) {
			held := take(a.alice)
			saved, _, err := a.Replace(t.Context(), a.alice, process.ID, held.Token, nil, fields("saved"))
			check(t, err)
			listing{desk: a.desk}.wait(t, resource)
			got := must(a.LockDetails(t.Context(), resource))
			if got.Holder.Email != a.alice.Email || got.Holder.Reason != "reason" || got.Waiting != 1 || len(got.Queue) != 1 || got.Degraded {
				t.Errorf("%+v", got)
			}
			if got.ActiveAt.Before(saved.UpdatedAt) {
				t.Errorf("active at %v, saved at %v", got.ActiveAt, saved.UpdatedAt)
			}
		})

		t.Run("tell how the lock went, the latest first", func(t *testing.T) {
			other := must(a.Create(t.Context(), a.alice, fields("Another")))
			process, resource = other, services.Resource(other.ID)
			type end struct{ holder, how, by string }
			var want []end
			ended := func(holder models.UserRef, how string, by models.UserRef) {
				want = slices.Insert(want, 0, end{holder.Email, how, by.Email})
			}
			held := take(a.alice)
			check(t, errorOf(a.Unlock(t.Context(), a.alice, other.ID, held.Token)))
			ended(a.alice, models.LockReleased, a.alice)
			recorder.Flush(t.Context())

			take(a.bob)
			held = must(a.Lock(t.Context(), a.alice, other.ID, taking("mine")))
			ended(a.bob, models.LockTakenOver, a.alice)

			r := a.ask(t, a.bob, other.ID)
			check(t, errorOf(a.answer(t, held, r, services.RequestAnswer{State: models.RequestGiven, Message: "here"})))
			ended(a.alice, models.LockGiven, a.alice)

			got := must(a.LockDetails(t.Context(), resource))
			var ends []end
			for _, e := range got.History {
				ends = append(ends, end{e.Holder.Email, e.End.How, e.End.By.Email})
				if e.Fence == nil || e.Holder.UserID == "" || e.Holder.Since.After(e.End.At) || time.Since(e.Holder.Since).Abs() > time.Minute {
					t.Errorf("%+v", e)
				}
			}
			if !slices.Equal(ends, want) {
				t.Errorf("%+v, want %+v", ends, want)
			}
		})

		t.Run("of another resource know of no writes", func(t *testing.T) {
			for _, name := range []string{"process:x", "job:nightly"} {
				held := lockFor(t, a.locks, name)
				if got := must(a.LockDetails(t.Context(), name)); got.Grant != held.Grant || !got.ActiveAt.Equal(got.Holder.Since) {
					t.Errorf("%+v", got)
				}
			}
		})
	})
}

// A lease that ends by itself is told with who had it, whichever instance finds it.
func TestExpiredLockKnowsItsHolder(t *testing.T) {
	t.Parallel()
	ends := make(chan models.EndedLock, 1)
	locks := lock.New(redistest.New(t, servicestest.StartRedis(t).Addr), lock.Options{Ended: func(e models.EndedLock) { ends <- e }})
	request := lockRequest("process:1")
	request.TTL = 50 * time.Millisecond
	held := must(locks.TryAcquire(t.Context(), request))
	select {
	case e := <-ends:
		if e.Holder.Email != "alice@example.com" || !e.Holder.Since.Equal(held.Holder.Since) || e.Fence == nil || *e.Fence != *held.Fence || e.End.How != models.LockExpired {
			t.Errorf("%+v", e)
		}
	case <-time.After(servicestest.Patience):
		t.Fatal("nobody was told")
	}
}
