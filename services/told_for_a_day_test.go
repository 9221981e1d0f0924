package services_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/redis/redistest"
)

// How a lock ended, and why a save was refused, is told for a day, and then it is forgotten.
func TestToldForADay(t *testing.T) {
	t.Parallel()
	const day, minute = 24 * time.Hour, time.Minute
	onEachDatabase(t, func(t *testing.T, d desk) {
		var passed atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
		d.locks = lock.New(redistest.New(t, d.addr), lock.Options{Clock: now, Logger: redistest.Quiet()})
		d.Processes = newProcesses(d.store, d.locks)
		recorder := services.NewRecorder(d.store, redistest.Quiet())
		t.Cleanup(func() { _ = recorder.Close(context.Background()) })
		alice := addUser(t, d.store, "alice@example.com")
		process := must(d.Create(t.Context(), alice, fields("Order paper")))
		resource := services.Resource(process.ID)
		lost := must(d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{}))
		must(d.Lock(t.Context(), alice, process.ID, taking("my other tab")))
		// what there is of a lock that ended, and of a save that was refused, so long ago
		happened := func(name string, ago time.Duration) {
			at := time.Now().Add(-ago)
			check(t, d.store.AddLockEnds(t.Context(), models.EndedLock{Grant: name, Resource: resource, End: models.LockEnd{How: models.LockReleased, At: at}}))
			check(t, d.store.AddRefusals(t.Context(), []models.Refusal{{RequestID: name, User: alice, At: at, Status: 409, Resource: resource}}))
		}
		happened("now", 0)
		happened("told", day-minute)
		happened("over", day+minute)

		told := map[string]bool{}
		for _, ended := range must(d.LockDetails(t.Context(), resource)).History {
			told[ended.Grant] = true
		}
		for name, want := range map[string]bool{"now": true, "told": true, "over": false} {
			_, _, err := recorder.Refusal(t.Context(), alice, false, name)
			if told[name] != want || (err == nil) != want || err != nil && !errors.Is(err, models.ErrNotFound) {
				t.Errorf("%s: the end is told: %t; the refusal: %v", name, told[name], err)
			}
		}
		for _, row := range []struct {
			after time.Duration
			told  bool
		}{{day - minute, true}, {day + minute, false}} {
			passed.Store(int64(row.after))
			must(d.store.CleanUp(t.Context(), now(), 100))
			for use, err := range d.uses(t, alice, process.ID, lost.Token) {
				var notHeld *models.NotHeldError
				if !errors.As(err, &notHeld) || (notHeld.EndedBy != nil) != row.told {
					t.Errorf("%s %v later: %+v, %v", use, row.after, notHeld, err)
				}
			}
			if _, err := d.store.Refusal(t.Context(), alice.ID, "now", time.Time{}); (err == nil) != row.told {
				t.Errorf("a refusal %v later: %v", row.after, err)
			}
		}
	})
}
