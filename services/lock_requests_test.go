package services_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

// asking is a desk with three editors, and the requests of two for a process that the third holds.
type asking struct {
	desk
	alice, bob, carol models.UserRef
}

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
	r, created, _, err := a.Ask(t.Context(), user, id, "please, "+user.Email, 0)
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
	answer.Client = services.Client{RequestID: "answer"}
	now, _, err := a.AnswerRequest(t.Context(), a.alice, r.ProcessID, held.Token, r.ID, answer)
	return now, err
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
		ctx := t.Context()
		var conflict *models.RequestConflictError

		t.Run("are for locks of others", func(t *testing.T) {
			process := must(a.Create(ctx, a.alice, fields("free")))
			if _, _, _, err := a.Ask(ctx, a.bob, process.ID, "", 0); !errors.As(err, &conflict) || conflict.Field != "lock" {
				t.Errorf("free: %v", err)
			}
			id, _ := a.held(t)
			if _, _, _, err := a.Ask(ctx, a.alice, id, "", 0); !errors.As(err, &conflict) || conflict.Field != "lock" {
				t.Errorf("own: %v", err)
			}
			if _, _, _, err := a.Ask(ctx, a.bob, "4711", "", 0); !errors.Is(err, models.ErrNotFound) {
				t.Errorf("no process: %v", err)
			}
			must(a.Lock(ctx, a.bob, process.ID, services.ProcessLockOptions{}))
			var tooMany *models.TooManyLocksError
			if _, _, _, err := a.Ask(ctx, a.bob, id, "", 1); !errors.As(err, &tooMany) {
				t.Errorf("one lock too many: %v", err)
			}
		})

		t.Run("are seen by the holder and by their asker, and heard of by them", func(t *testing.T) {
			id, _ := a.held(t)
			events := a.locks.Events(ctx)
			first, second := a.ask(t, a.carol, id), a.ask(t, a.bob, id)
			if first.State != models.RequestOpen || first.AnswerBy.Sub(first.At) != 2*time.Minute || time.Since(first.At).Abs() > time.Minute {
				t.Errorf("%+v", first)
			}
			again, created, _, err := a.Ask(ctx, a.bob, id, "hurry", 0)
			if err != nil || created || again.ID != second.ID || again.Message != second.Message {
				t.Errorf("asked again: %+v, %t, %v", again, created, err)
			}
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

		t.Run("give: the asker has the lock at once, and the holder not any more", func(t *testing.T) {
			id, held := a.held(t)
			other, r := a.ask(t, a.carol, id), a.ask(t, a.bob, id)
			if now, err := a.answer(t, held, r, services.RequestAnswer{State: models.RequestGiven, Message: "all yours"}); err != nil || now.State != models.RequestGiven {
				t.Fatalf("%+v, %v", now, err)
			}
			status := must(a.LockStatus(ctx, a.alice, id))
			if status.Holder.UserID != a.bob.ID || status.TTL > 40*time.Second || *status.Fence <= *held.Fence {
				t.Errorf("before it is fetched: %+v", status)
			}
			for use, err := range a.uses(t, a.alice, id, held.Token) {
				if end := endedBy(t, err); end.How != models.LockGiven || end.By != a.alice || end.Reason != "" {
					t.Errorf("%s: %+v", use, end)
				}
			}
			if ends := must(a.LockDetails(ctx, services.Resource(id))).History; len(ends) != 1 || ends[0].End.How != models.LockGiven || ends[0].End.Reason != "" {
				t.Errorf("everybody reads of the answer: %+v", ends)
			}
			given := a.wantState(t, r, models.RequestGiven)
			if given.Lock.TTL < 290*time.Second || given.LastWord() != "all yours" || given.Lock.Process.ID != id {
				t.Errorf("%+v", given)
			}
			if again := a.wantState(t, r, models.RequestGiven); again.Lock.Token != given.Lock.Token || again.Lock.Grant != given.Lock.Grant {
				t.Errorf("fetched again: %+v", again.Lock)
			}
			if _, err := a.answer(t, held, other, services.RequestAnswer{State: models.RequestNo}); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("the former holder answers: %v", err)
			}
			entry := auditOf(t, a.store, models.AuditLockGiven)[0]
			if entry.Actor != a.alice.Email || entry.Target != services.Resource(id) || entry.Detail != "to bob@example.com: all yours" || entry.RequestID != "answer" {
				t.Errorf("%+v", entry)
			}
			a.wantState(t, other, models.RequestOpen) // now of bob
		})

		t.Run("later and no", func(t *testing.T) {
			id, held := a.held(t)
			r := a.ask(t, a.bob, id)
			waited := a.await(t, r)
			now, err := a.answer(t, held, r, services.RequestAnswer{State: models.RequestLater, Later: 7 * time.Minute, Message: "almost"})
			if err != nil || now.State != models.RequestLater || now.AnswerBy.Sub(now.AnsweredAt) != 7*time.Minute {
				t.Fatalf("%+v, %v", now, err)
			}
			if told := <-waited; told.State != models.RequestLater || told.LastWord() != "almost" {
				t.Errorf("%+v", told)
			}
			waited = a.await(t, r)
			if again, err := a.answer(t, held, r, services.RequestAnswer{State: models.RequestLater}); err != nil || again.AnswerBy.Sub(again.AnsweredAt) != 5*time.Minute {
				t.Errorf("%+v, %v", again, err)
			}
			if told := <-waited; told.State != models.RequestLater || told.AnsweredAt.Equal(now.AnsweredAt) {
				t.Errorf("%+v", told)
			}
			if entry := auditOf(t, a.store, models.AuditLockAnswered)[0]; entry.Detail != "later to bob@example.com" || entry.Actor != a.alice.Email {
				t.Errorf("%+v", entry)
			}
			for range 2 { // the same answer twice is one
				if now, err := a.answer(t, held, r, services.RequestAnswer{State: models.RequestNo}); err != nil || now.State != models.RequestNo {
					t.Fatalf("%+v, %v", now, err)
				}
			}
			a.wantState(t, r, models.RequestNo)
			if _, err := a.answer(t, held, r, services.RequestAnswer{State: models.RequestGiven}); !errors.As(err, &conflict) || conflict.Field != "answer" {
				t.Errorf("another answer: %v", err)
			}
			next := a.ask(t, a.bob, id) // may be asked anew
			if _, _, err := a.AnswerRequest(ctx, a.alice, "4711", held.Token, next.ID, services.RequestAnswer{State: models.RequestNo}); !errors.Is(err, models.ErrNotFound) {
				t.Errorf("no process: %v", err)
			}
			if _, _, err := a.AnswerRequest(ctx, a.alice, id, held.Token, "none", services.RequestAnswer{State: models.RequestNo}); !errors.Is(err, models.ErrNotFound) {
				t.Errorf("no request: %v", err)
			}
			if _, _, err := a.AnswerRequest(ctx, a.alice, id, "", next.ID, services.RequestAnswer{State: models.RequestNo}); !errors.Is(err, models.ErrLockTokenRequired) {
				t.Errorf("no token: %v", err)
			}
		})

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
			if entry := auditOf(t, a.store, models.AuditLockGiven)[0]; entry.Actor != a.carol.Email || entry.Detail != "no answer from alice@example.com" {
				t.Errorf("%+v", entry)
			}
			check(t, errorOf(a.Unlock(ctx, a.carol, id, given.Lock.Token)))
		})

		t.Run("what is not fetched passes on, and is free in the end", func(t *testing.T) {
			id, held := a.held(t)
			first, second := a.ask(t, a.carol, id), a.ask(t, a.bob, id)
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
			if s := must(a.LockStatus(ctx, a.alice, id)); s.Held {
				t.Errorf("%+v", s)
			}
		})

		t.Run("a lock that becomes free is the queue's, then the first asker's who is there", func(t *testing.T) {
			id, held := a.held(t)
			absent, r := a.ask(t, a.carol, id), a.ask(t, a.bob, id)
			waiter := make(chan services.ProcessLock, 1)
			go func() { waiter <- must(a.Lock(ctx, a.carol, id, services.ProcessLockOptions{Wait: time.Minute})) }()
			servicestest.Eventually(t, func() bool { return must(a.locks.Status(ctx, services.Resource(id))).Waiting == 1 }, "nobody waits")
			must(a.Unlock(ctx, a.alice, id, held.Token))
			queued := <-waiter
			a.after(t, 0, time.Hour)
			a.wantState(t, absent, models.RequestWithdrawn) // she has it
			must(a.Unlock(ctx, a.carol, id, queued.Token))
			a.after(t, 90*time.Second, time.Hour) // nobody looked for so long
			a.wantState(t, r, models.RequestOpen)
			a.after(t, 0, time.Hour)
			given := a.wantState(t, r, models.RequestGiven)
			must(a.Unlock(ctx, a.bob, id, given.Lock.Token))
			if now := a.look(t, r); now.State != models.RequestGiven || now.Lock != nil {
				t.Errorf("a lock that was given back: %+v", now)
			}
		})

		t.Run("are withdrawn, also when given", func(t *testing.T) {
			id, held := a.held(t)
			first, second := a.ask(t, a.carol, id), a.ask(t, a.bob, id)
			if err := a.Withdraw(ctx, a.bob, id, first.ID); !errors.Is(err, models.ErrNotFound) {
				t.Errorf("another's: %v", err)
			}
			must(a.answer(t, held, first, services.RequestAnswer{State: models.RequestGiven}))
			check(t, a.Withdraw(ctx, a.carol, id, first.ID))
			a.wantState(t, first, models.RequestWithdrawn)
			a.wantState(t, second, models.RequestGiven)
			for range 2 {
				check(t, a.Withdraw(ctx, a.bob, id, second.ID)) // too late: he has it
			}
			a.wantState(t, second, models.RequestGiven)
			third := a.ask(t, a.carol, id)
			check(t, a.Withdraw(ctx, a.carol, id, third.ID))
			a.wantState(t, third, models.RequestWithdrawn)
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
				other := newDesk(t, redistest.Patient(t, a.addr), a.store)
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

		t.Run("withdrawn while it is given, nobody is left with the lock", func(t *testing.T) {
			for range 10 {
				id, held := a.held(t)
				r := a.ask(t, a.bob, id)
				var wg sync.WaitGroup
				wg.Go(func() { _, _ = a.answer(t, held, r, services.RequestAnswer{State: models.RequestGiven}) })
				wg.Go(func() { check(t, a.Withdraw(ctx, a.bob, id, r.ID)) })
				wg.Wait()
				now, status := a.look(t, r), must(a.LockStatus(ctx, a.bob, id))
				if now.State != models.RequestWithdrawn || status.Held && status.Holder.UserID == a.bob.ID {
					t.Errorf("%+v, %+v", now, status)
				}
			}

			id, held := a.held(t)
			r := a.ask(t, a.bob, id)
			at := newProcesses(answeredBefore{d.store, func() {
				must(a.answer(t, held, r, services.RequestAnswer{State: models.RequestGiven}))
			}}, d.locks, secret)
			check(t, at.Withdraw(ctx, a.bob, id, r.ID))
			if now, status := a.look(t, r), must(a.LockStatus(ctx, a.bob, id)); now.State != models.RequestWithdrawn || status.Held {
				t.Errorf("%+v, %+v", now, status)
			}
		})
	})
}

// answeredBefore stores another answer just before one of its own.
type answeredBefore struct {
	*store.Store
	another func()
}

func (s answeredBefore) AnswerLockRequest(ctx context.Context, answer models.LockRequest) (models.LockRequest, bool, error) {
	s.another()
	return s.Store.AnswerLockRequest(ctx, answer)
}

// unstoredAnswers loses its database when a request is answered.
type unstoredAnswers struct{ *store.Store }

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
		r, created, degraded, err := a.Ask(ctx, a.bob, id, "", 0)
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
		for _, change := range []func(){func() {}, func() { check(t, a.Withdraw(ctx, a.bob, id, r.ID)) }} {
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
