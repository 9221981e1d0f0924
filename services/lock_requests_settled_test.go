package services_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

func (a asking) areSettled(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	var conflict *models.RequestConflictError

	t.Run("no answer: it passes to the first asked when the protection is over", func(t *testing.T) {
		id, held := a.held(t)
		first, second := a.ask(t, a.carol, id), a.ask(t, a.bob, id)
		a.after(t, time.Minute, time.Nanosecond) // the answer is not due
		a.after(t, 3*time.Minute, time.Hour)     // she is protected
		a.wantState(t, first, models.RequestOpen)
		a.after(t, 3*time.Minute, time.Nanosecond)
		given := a.wantState(t, first, models.RequestGiven)
		a.wantState(t, second, models.RequestOpen)
		for use, err := range a.uses(t, a.alice, id, held.Token) {
			if end := endedBy(t, err); end.How != models.LockGiven || end.By != (models.UserRef{}) || end.Reason != "no answer to the request of carol@example.com" {
				t.Errorf("%s: %+v", use, end)
			}
		}
		a.wantAudit(t, id, models.AuditLockGiven, "carol@example.com  : no answer from alice@example.com")
		check(t, errorOf(a.Unlock(ctx, a.carol, id, given.Lock.Token)))
	})

	t.Run("who was told to wait is not overtaken by who asked next", func(t *testing.T) {
		id, held := a.held(t)
		first, second := a.ask(t, a.carol, id), a.ask(t, a.bob, id)
		must(a.answer(t, held, first, services.RequestAnswer{State: models.RequestLater, Later: 30 * time.Minute}))
		a.after(t, 3*time.Minute, time.Nanosecond)
		given := a.wantState(t, first, models.RequestGiven)
		a.wantState(t, second, models.RequestOpen)
		a.withdraw(t, second)
		a.wantAudit(t, id, models.AuditLockGiven, "carol@example.com  : no answer from alice@example.com to bob@example.com")
		check(t, errorOf(a.Unlock(ctx, a.carol, id, given.Lock.Token)))
	})

	t.Run("what is not fetched passes on, to who asked next, and is free in the end", func(t *testing.T) {
		id, held := a.held(t)
		dan := addUser(t, a.store, fmt.Sprintf("dan%s@example.com", id))
		first, second, third := a.ask(t, a.carol, id), a.ask(t, a.bob, id), a.ask(t, dan, id)
		must(a.answer(t, held, first, services.RequestAnswer{State: models.RequestGiven}))
		a.after(t, 25*time.Second, time.Hour) // there is time
		if s := must(a.LockStatus(ctx, a.alice, id)); s.Holder.UserID != a.carol.ID {
			t.Fatalf("%+v", s)
		}
		a.after(t, 31*time.Second, time.Hour)
		a.wantState(t, first, models.RequestExpired)
		if s := must(a.LockStatus(ctx, a.alice, id)); s.Holder.UserID != a.bob.ID {
			t.Fatalf("%+v", s)
		}
		a.after(t, 31*time.Second, time.Hour)
		a.wantState(t, second, models.RequestExpired)
		if s := must(a.LockStatus(ctx, a.alice, id)); s.Holder.UserID != dan.ID {
			t.Fatalf("%+v", s)
		}
		a.after(t, 31*time.Second, time.Hour)
		a.wantState(t, third, models.RequestExpired)
		if s := must(a.LockStatus(ctx, a.alice, id)); s.Held {
			t.Errorf("%+v", s)
		}
		a.wantAudit(t, id, models.AuditLockGiven, dan.Email+"  : bob@example.com did not fetch it",
			"bob@example.com  : carol@example.com did not fetch it", "alice@example.com 192.0.2.1 answer: to carol@example.com")
		a.wantAudit(t, id, models.AuditRequestEnded, dan.Email+"  : not fetched in time",
			"bob@example.com  : not fetched in time", "carol@example.com  : not fetched in time")
	})

	t.Run("a lock that becomes free is the queue's, then the first asker's who is there", func(t *testing.T) {
		id, held := a.held(t)
		dan := addUser(t, a.store, fmt.Sprintf("dan%s@example.com", id))
		absent, r, last := a.ask(t, a.carol, id), a.ask(t, a.bob, id), a.ask(t, dan, id)
		waiter := make(chan services.ProcessLock, 1)
		go func() { waiter <- must(a.Lock(ctx, a.carol, id, services.ProcessLockOptions{Wait: time.Minute})) }()
		servicestest.Eventually(t, func() bool { return must(a.locks.Status(ctx, services.Resource(id))).Waiting == 1 }, "nobody waits")
		must(a.Unlock(ctx, a.alice, id, held.Token))
		queued := <-waiter
		a.after(t, 0, time.Hour)
		a.wantState(t, absent, models.RequestWithdrawn) // she has it
		a.wantAudit(t, id, models.AuditRequestEnded, "carol@example.com  : its user has the lock")
		must(a.Unlock(ctx, a.carol, id, queued.Token))
		a.after(t, 90*time.Second, time.Hour) // nobody looked for so long
		a.wantState(t, r, models.RequestOpen)
		a.after(t, 0, time.Hour)
		given := a.wantState(t, r, models.RequestGiven)
		a.wantState(t, last, models.RequestOpen)
		a.withdraw(t, last)
		a.wantAudit(t, id, models.AuditLockGiven, "bob@example.com  : it became free")
		must(a.Unlock(ctx, a.bob, id, given.Lock.Token))
		if now := a.look(t, r); now.State != models.RequestGiven || now.Lock != nil {
			t.Errorf("a lock that was given back: %+v", now)
		}
	})

	t.Run("a lock that is given back is the asker's at once", func(t *testing.T) {
		id, held := a.held(t)
		r := a.ask(t, a.carol, id)
		at := newProcesses(a.store, a.locks, secret)
		at.SettleRound(ctx) // which finds the request
		at.SettleOnlyWhatIsFreed()
		stop := at.KeepSettling()
		must(at.Unlock(ctx, a.alice, id, held.Token))
		servicestest.Eventually(t, func() bool { return a.look(t, r).State == models.RequestGiven }, "it waits for the next round")
		check(t, stop(context.WithoutCancel(ctx)))
		given := a.wantState(t, r, models.RequestGiven)
		must(a.Unlock(ctx, a.carol, id, given.Lock.Token))
	})

	t.Run("end with their asker's right, presence, or existence", func(t *testing.T) {
		id, held := a.held(t)
		dan, eve := addUser(t, a.store, fmt.Sprintf("dan%s@example.com", id)), addUser(t, a.store, fmt.Sprintf("eve%s@example.com", id))
		disabled, deleted, r := a.ask(t, dan, id), a.ask(t, eve, id), a.ask(t, a.bob, id)
		must(a.store.UpdateUser(ctx, dan.ID, models.UserPatch{Disabled: new(true)}))
		check(t, a.store.DeleteUser(ctx, eve.ID))
		if _, err := a.answer(t, held, disabled, services.RequestAnswer{State: models.RequestGiven}); !errors.As(err, &conflict) {
			t.Errorf("given to a disabled user: %v", err)
		}
		a.wantState(t, disabled, models.RequestExpired)
		if _, err := a.answer(t, held, deleted, services.RequestAnswer{State: models.RequestGiven}); !errors.Is(err, models.ErrNotFound) {
			t.Errorf("given to a deleted user: %v", err)
		}
		check(t, errorOf(a.Extend(ctx, a.alice, id, held.Token, 0)))
		a.after(t, 2*time.Hour, 3*time.Hour)
		a.wantState(t, r, models.RequestOpen)
		a.after(t, 2*time.Hour, time.Minute)
		a.wantState(t, r, models.RequestExpired)
		a.wantAudit(t, id, models.AuditRequestEnded, "bob@example.com  : its user stayed away", dan.Email+"  : its user may not lock any more")
		again := a.ask(t, a.bob, id)
		check(t, errorOf(a.Delete(ctx, a.alice, id, held.Token, nil)))
		if _, err := a.Asked(ctx, a.bob, id, again.ID, 0, 0); !errors.Is(err, models.ErrNotFound) {
			t.Errorf("of a deleted process: %v", err)
		}
		a.after(t, 0, time.Hour)
	})

	t.Run("one too many is given back", func(t *testing.T) {
		id, held := a.held(t)
		r := a.ask(t, a.bob, id)
		must(a.answer(t, held, r, services.RequestAnswer{State: models.RequestGiven}))
		var tooMany *models.TooManyLocksError
		if _, err := a.Asked(ctx, a.bob, id, r.ID, 0, 1); !errors.As(err, &tooMany) { // of those above
			t.Errorf("%v", err)
		}
		if s := must(a.LockStatus(ctx, a.alice, id)); s.Held {
			t.Errorf("%+v", s)
		}
	})

	t.Run("an interrupted give is completed", func(t *testing.T) {
		id, held := a.held(t)
		r := a.ask(t, a.bob, id)
		at := a
		at.Processes = newProcesses(unstoredAnswers{a.store}, a.locks, secret)
		if _, err := at.answer(t, held, r, services.RequestAnswer{State: models.RequestGiven}); !errors.Is(err, models.ErrUnavailable) {
			t.Fatal(err)
		}
		a.wantState(t, r, models.RequestOpen)
		a.after(t, 0, time.Hour)
		a.wantState(t, r, models.RequestGiven)
	})

	t.Run("are settled by many instances as by one", func(t *testing.T) {
		for range 5 {
			id, held := a.held(t)
			first, second := a.ask(t, a.carol, id), a.ask(t, a.bob, id)
			other := newDesk(t, redistest.New(t, a.addr), a.store)
			var wg sync.WaitGroup
			for i := range 6 {
				at := []asking{a, {other, a.alice, a.bob, a.carol}}[i%2]
				wg.Go(func() { at.after(t, 3*time.Minute, time.Nanosecond) })
			}
			wg.Go(func() { _, _ = a.answer(t, held, second, services.RequestAnswer{State: models.RequestGiven}) })
			wg.Wait()
			won := 0
			for _, r := range []models.LockRequest{first, second} {
				if now := a.look(t, r); now.Lock != nil {
					won++
					if _, _, err := a.Replace(ctx, r.By, id, now.Lock.Token, nil, fields("won")); err != nil {
						t.Error(err)
					}
				}
			}
			if won != 1 {
				t.Errorf("%d have the lock", won)
			}
			for _, err := range a.uses(t, a.alice, id, held.Token) {
				endedBy(t, err)
			}
		}
	})
}

// unstoredAnswers loses its database when a request is answered.
type unstoredAnswers struct{ *store.Store }
