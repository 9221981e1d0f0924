package services_test

import (
	"context"
	"testing"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// How many wait for a lock is the same number wherever it stands: those in its queue, and those who
// asked for it, at whatever instance.
func TestWaitingIsOneNumber(t *testing.T) {
	t.Parallel()
	for _, with := range []string{"with Redis", "without Redis"} {
		t.Run(with, func(t *testing.T) {
			onEachDatabase(t, func(t *testing.T, d desk) {
				if with == "without Redis" {
					d = newDesk(t, redistest.Start(t, redis.Options{Disabled: true}), d.store)
				}
				a := newAsking(t, d)
				free, _ := a.held(t)
				id, _ := a.held(t)
				resource := services.Resource(id)
				wants := func(want int) {
					t.Helper()
					var listed, several int
					defer func() {
						if t.Failed() {
							t.Logf("%d wait in the list, %d of several, want %d", listed, several, want)
						}
					}()
					servicestest.Eventually(t, func() bool { // neither waits for a busy database
						listed = 0
						for _, item := range must(a.Locks(t.Context(), a.bob, services.LockQuery{Waiting: true})).Items {
							if item.Resource != resource {
								t.Fatalf("nobody waits for %+v", item)
							}
							listed = item.Waiting
						}
						statuses := must(a.LockStatuses(t.Context(), services.Resource(free), resource, "process:x"))
						if statuses[0].Waiting != 0 {
							t.Fatalf("nobody waits for %+v", statuses[0])
						}
						several = statuses[1].Waiting
						return listed == want && several == want
					}, "not one number")
					status, details := must(a.LockStatus(t.Context(), a.alice, id)).Waiting, must(a.LockDetails(t.Context(), resource)).Waiting
					if status != want || details != want {
						t.Fatalf("%d wait by the status, %d by the details, want %d", status, details, want)
					}
				}
				a.ask(t, a.bob, id)
				wants(1)
				r := a.ask(t, a.carol, id)
				wants(2)
				listing{desk: a.desk}.wait(t, resource)
				wants(3)
				a.withdraw(t, r)
				wants(2)
			})
		})
	}
}

// Without the database, a list counts those who queue.
func TestWaitingWithoutRequests(t *testing.T) {
	t.Parallel()
	l := newListing(t)
	l.Processes = newProcesses(noCounts{l.store}, l.locks)
	for resource, name := range l.names {
		want := map[string]int{"shed": 1, "gate": 2}[name]
		if got := must(l.LockStatuses(t.Context(), resource)); got[0].Waiting != want {
			t.Errorf("%s: %+v, want %d", name, got, want)
		}
	}
	if list := must(l.Locks(t.Context(), l.alice, services.LockQuery{Waiting: true})); list.Count != 2 {
		t.Errorf("%+v", list)
	}
}

// noCounts is a database that answers nothing about requests for locks.
type noCounts struct{ services.ProcessStore }

func (noCounts) PendingCounts(context.Context) (map[string]int, error) {
	return nil, models.ErrUnavailable
}
