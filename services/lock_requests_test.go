package services_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

// asking is a desk with three editors, and the requests of two for a process that the third holds.
type asking struct {
	desk
	alice, bob, carol models.UserRef
}

// asker is from where those who ask send what they send.
var asker = services.Client{IP: "192.0.2.2", RequestID: "ask"}

func newAsking(t *testing.T, d desk) asking {
	t.Helper()
	return asking{d, addUser(t, d.store, "alice@example.com"), addUser(t, d.store, "bob@example.com"), addUser(t, d.store, "carol@example.com")}
}

// held is a new process that alice has locked.
func (a asking) held(t *testing.T) (id string, taken services.ProcessLock) {
	t.Helper()
	process := must(a.Create(t.Context(), a.alice, fields("Order paper")))
	return process.ID, must(a.Lock(t.Context(), a.alice, process.ID, services.ProcessLockOptions{}))
}

func (a asking) ask(t *testing.T, user models.UserRef, id string) models.LockRequest {
	t.Helper()
	r, created, _, err := a.Ask(t.Context(), user, id, services.AskOptions{Message: "please, " + user.Email, Client: asker})
	if err != nil || !created {
		t.Fatalf("%+v, %t, %v", r, created, err)
	}
	return r
}

// look is what the asker sees of a request.
func (a asking) look(t *testing.T, r models.LockRequest) services.AskedLock {
	t.Helper()
	return must(a.Asked(t.Context(), r.By, r.ProcessID, r.ID, 0, 0))
}

func (a asking) answer(t *testing.T, held services.ProcessLock, r models.LockRequest, answer services.RequestAnswer) (models.LockRequest, error) {
	t.Helper()
	answer.Client = services.Client{IP: "192.0.2.1", RequestID: "answer"}
	now, _, err := a.AnswerRequest(t.Context(), a.alice, r.ProcessID, held.Token, r.ID, answer)
	return now, err
}

// withdraw takes a request back in its asker's name.
func (a asking) withdraw(t *testing.T, r models.LockRequest) {
	t.Helper()
	check(t, a.Withdraw(t.Context(), r.By, r.ProcessID, r.ID, asker))
}

// wantAudit wants these entries of an action about the lock of a process, the newest first: who
// acted, from where, by which request, and the detail.
func (a asking) wantAudit(t *testing.T, id, action string, want ...string) {
	t.Helper()
	var got []string
	for _, e := range auditOf(t, a.store, action) {
		if e.Target == services.Resource(id) {
			got = append(got, fmt.Sprintf("%s %s %s: %s", e.Actor, e.IP, e.RequestID, e.Detail))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the audit has of %s\n%q, want\n%q", action, got, want)
	}
}

// wantState wants a request to be in a state, and the asker to have the lock if that is given.
func (a asking) wantState(t *testing.T, r models.LockRequest, want models.LockRequestState) services.AskedLock {
	t.Helper()
	now := a.look(t, r)
	if now.State != want || (now.Lock != nil) != (want == models.RequestGiven) {
		t.Fatalf("the request of %s is %+v, want %s", r.By.Email, now, want)
	}
	if now.Lock != nil {
		if reason := must(a.LockStatus(t.Context(), r.By, r.ProcessID)).Holder.Reason; reason != "" {
			t.Errorf("what was asked the holder is told everybody: %q", reason)
		}
		if _, _, err := a.Replace(t.Context(), r.By, r.ProcessID, now.Lock.Token, nil, fields("by "+r.By.Email)); err != nil {
			t.Errorf("the asker's token: %v", err)
		}
	}
	return now
}

// await is what the asker gets who waits for a change, once that is so.
func (a asking) await(t *testing.T, r models.LockRequest) <-chan services.AskedLock {
	t.Helper()
	watched := &watchedRequests{Store: a.store}
	at, changed := newProcesses(watched, a.locks, secret), make(chan services.AskedLock, 1)
	go func() { changed <- must(at.Asked(t.Context(), r.By, r.ProcessID, r.ID, servicestest.Patience, 0)) }()
	servicestest.Eventually(t, func() bool { return watched.reads.Load() > 1 }, "it does not wait")
	return changed
}

// watchedRequests counts how often a request is read.
type watchedRequests struct {
	*store.Store
	reads atomic.Int32
}

func (s *watchedRequests) LockRequest(ctx context.Context, id string) (models.LockRequest, error) {
	r, err := s.Store.LockRequest(ctx, id)
	s.reads.Add(1)
	return r, err
}

// agedStore is a store whose requests were made and seen so much earlier, and given, unless that is
// longer ago than anything waits to be fetched.
type agedStore struct {
	*store.Store
	by time.Duration
}

func (s agedStore) LockRequestsToSettle(ctx context.Context, after string, limit int) ([]models.LockRequest, error) {
	all, err := s.Store.LockRequestsToSettle(ctx, after, limit)
	for i := range all {
		for _, at := range []*time.Time{&all[i].At, &all[i].SeenAt, &all[i].AnswerBy} {
			*at = at.Add(-s.by)
		}
		if s.by < time.Minute {
			all[i].FetchBy = all[i].FetchBy.Add(-s.by)
		}
	}
	return all, err
}

// after settles what there is to settle when so much time has passed, at an instance where holders
// are protected for so long.
func (a asking) after(t *testing.T, passed, protection time.Duration) {
	t.Helper()
	must(services.NewProcesses(agedStore{a.store, passed}, a.locks, must(lock.NewTokenSigner([]string{secret})), []string{secret},
		services.ProcessesOptions{Protection: protection, Logger: redistest.Quiet()})).SettleRound(t.Context())
}

func TestLockRequests(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, d desk) {
		a := newAsking(t, d)
		a.areMade(t)
		a.areAnswered(t)
		a.areSettled(t)
	})
}

func (a asking) areMade(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	var conflict *models.RequestConflictError

	t.Run("are for locks of others", func(t *testing.T) {
		process := must(a.Create(ctx, a.alice, fields("free")))
		if _, _, _, err := a.Ask(ctx, a.bob, process.ID, services.AskOptions{}); !errors.As(err, &conflict) || conflict.Field != "lock" {
			t.Errorf("free: %v", err)
		}
		id, _ := a.held(t)
		if _, _, _, err := a.Ask(ctx, a.alice, id, services.AskOptions{}); !errors.As(err, &conflict) || conflict.Field != "lock" {
			t.Errorf("own: %v", err)
		}
		if _, _, _, err := a.Ask(ctx, a.bob, "4711", services.AskOptions{}); !errors.Is(err, models.ErrNotFound) {
			t.Errorf("no process: %v", err)
		}
		must(a.Lock(ctx, a.bob, process.ID, services.ProcessLockOptions{}))
		var tooMany *models.TooManyLocksError
		if _, _, _, err := a.Ask(ctx, a.bob, id, services.AskOptions{Most: 1}); !errors.As(err, &tooMany) {
			t.Errorf("one lock too many: %v", err)
		}
		id2, _ := a.held(t)
		first := a.ask(t, a.bob, id2)
		if again, created, _, err := a.Ask(ctx, a.bob, id2, services.AskOptions{Most: 1}); err != nil || created || again.ID != first.ID {
			t.Errorf("asked again, at the limit: %+v, %t, %v", again, created, err)
		}
	})

	t.Run("are seen by the holder and by their asker, and heard of by them", func(t *testing.T) {
		id, _ := a.held(t)
		events := a.locks.Events(ctx)
		first, second := a.ask(t, a.carol, id), a.ask(t, a.bob, id)
		if first.State != models.RequestOpen || first.AnswerBy.Sub(first.At) != 2*time.Minute || time.Since(first.At).Abs() > time.Minute {
			t.Errorf("%+v", first)
		}
		again, created, _, err := a.Ask(ctx, a.bob, id, services.AskOptions{Message: "hurry", Client: asker})
		if err != nil || created || again.ID != second.ID || again.Message != second.Message {
			t.Errorf("asked again: %+v, %t, %v", again, created, err)
		}
		a.wantAudit(t, id, models.AuditLockAsked,
			"bob@example.com 192.0.2.2 ask: of alice@example.com: please, bob@example.com", "carol@example.com 192.0.2.2 ask: of alice@example.com: please, carol@example.com")
		status := must(a.LockStatus(ctx, a.alice, id))
		if status.Asked != 2 || len(status.Requests) != 2 || status.Requests[0].ID != first.ID || status.Requests[1].By != a.bob || status.Requests[1].Message != "please, bob@example.com" {
			t.Errorf("%+v", status)
		}
		for range 2 {
			e := eventOf(t, events, models.LockAsked)
			if r := e.Request; !e.VisibleTo(a.alice.ID, false) || !e.VisibleTo(r.By.ID, false) || e.VisibleTo("9", false) || !e.VisibleTo("9", true) || e.Resource != services.Resource(id) {
				t.Errorf("%+v", e)
			}
		}
		a.wantState(t, first, models.RequestOpen)
		for _, wrong := range [][2]string{{a.alice.ID, id}, {a.bob.ID, id}, {a.carol.ID, "1"}} {
			if _, err := a.Asked(ctx, models.UserRef{ID: wrong[0]}, wrong[1], first.ID, 0, 0); !errors.Is(err, models.ErrNotFound) {
				t.Errorf("shown to %v: %v", wrong, err)
			}
		}
	})
}

func (unstoredAnswers) AnswerLockRequest(context.Context, models.LockRequest) (models.LockRequest, bool, error) {
	return models.LockRequest{}, false, models.ErrUnavailable
}

// eventOf is the next event of a name.
func eventOf(t *testing.T, events <-chan models.LockEvent, name string) (found models.LockEvent) {
	t.Helper()
	servicestest.Eventually(t, func() bool {
		select {
		case found = <-events:
			return found.Name == name
		default:
			return false
		}
	}, "no event "+name)
	return found
}
