package services_test

import (
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/store"
)

// Without Redis requests work in the database, and locks pass on where they are known.
func TestLockRequestsWithoutRedis(t *testing.T) {
	t.Parallel()
	noRedis := func(db *store.Store) desk { return newDesk(t, redistest.Start(t, redis.Options{Disabled: true}), db) }
	onEachDatabase(t, func(t *testing.T, d desk) {
		a := newAsking(t, noRedis(d.store))
		other := asking{noRedis(d.store), a.alice, a.bob, a.carol}
		ctx := t.Context()
		id, held := a.held(t)
		events := a.locks.Events(ctx)
		r, created, degraded, err := a.Ask(ctx, a.bob, id, services.AskOptions{})
		if err != nil || !created || !degraded {
			t.Fatalf("%+v, %t, %t, %v", r, created, degraded, err)
		}
		eventOf(t, events, models.LockAsked)
		if _, err := a.answer(t, held, r, services.RequestAnswer{State: models.RequestGiven}); err != nil {
			t.Fatal(err)
		}
		if e := eventOf(t, events, models.LockAnswered); e.Request.State != models.RequestGiven {
			t.Errorf("%+v", e)
		}
		given := other.wantState(t, r, models.RequestGiven) // fetched at the other instance
		if !given.Lock.Degraded || given.Lock.TTL < 290*time.Second {
			t.Errorf("%+v", given.Lock)
		}
		for _, at := range []asking{a, other} {
			if _, _, err := at.Replace(ctx, a.alice, id, held.Token, nil, fields("late")); endedBy(t, err).How != models.LockGiven {
				t.Error(err)
			}
		}

		// What one instance stores, the pages of the other hear from the next round.
		id, _ = a.held(t)
		events = other.locks.Events(ctx)
		other.SettleRound(ctx)
		r = a.ask(t, a.bob, id)
		for _, change := range []func(){func() {}, func() { a.withdraw(t, r) }} {
			change()
			other.SettleRound(ctx)
			if e := eventOf(t, events, models.LockWaiting); e.Resource != services.Resource(id) {
				t.Errorf("%+v", e)
			}
			other.SettleRound(ctx)
			if len(events) > 0 {
				t.Errorf("told again: %+v", <-events)
			}
		}

		id, _ = a.held(t)
		r = a.ask(t, a.carol, id)
		other.after(t, 3*time.Minute, time.Nanosecond) // it does not know of the lock
		a.wantState(t, r, models.RequestOpen)
		a.after(t, 3*time.Minute, time.Nanosecond)
		a.wantState(t, r, models.RequestGiven)

		id, held = a.held(t)
		r = a.ask(t, a.carol, id)
		check(t, errorOf(a.Unlock(ctx, a.alice, id, held.Token)))
		other.after(t, 0, time.Hour)
		a.wantState(t, r, models.RequestOpen)
		a.after(t, 0, time.Hour)
		a.wantState(t, r, models.RequestGiven)
	})
}
