package services_test

import (
	"context"
	"maps"
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
					var got map[string]int
					defer func() {
						if t.Failed() {
							t.Logf("%v wait, want %d", got, want)
						}
					}()
					servicestest.Eventually(t, func() bool { // a list does not wait for a busy database
						status, list := must(a.LockStatus(t.Context(), a.alice, id)), must(a.Locks(t.Context(), a.bob, services.LockQuery{Waiting: true}))
						several := must(a.LockStatuses(t.Context(), services.Resource(free), resource, "process:x"))
						got = map[string]int{
							"status": status.Waiting, "details": must(a.LockDetails(t.Context(), resource)).Waiting,
							"several": several[1].Waiting, "another": several[0].Waiting + want,
						}
						for _, item := range list.Items {
							got[item.Resource] = item.Waiting
						}
						return maps.Equal(got, map[string]int{"status": want, "details": want, "several": want, "another": want, resource: want})
					}, "not one number")
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
