package services_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/store"
)

func (a asking) areAnswered(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	var conflict *models.RequestConflictError

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
		a.wantAudit(t, id, models.AuditLockGiven, "alice@example.com 192.0.2.1 answer: to bob@example.com: all yours")
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
		for range 2 { // the same answer twice is one
			if now, err := a.answer(t, held, r, services.RequestAnswer{State: models.RequestNo}); err != nil || now.State != models.RequestNo {
				t.Fatalf("%+v, %v", now, err)
			}
		}
		a.wantState(t, r, models.RequestNo)
		a.wantAudit(t, id, models.AuditLockAnswered, "alice@example.com 192.0.2.1 answer: no to bob@example.com",
			"alice@example.com 192.0.2.1 answer: later to bob@example.com", "alice@example.com 192.0.2.1 answer: later to bob@example.com: almost")
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

	t.Run("are withdrawn, also when given", func(t *testing.T) {
		id, held := a.held(t)
		first, second := a.ask(t, a.carol, id), a.ask(t, a.bob, id)
		if err := a.Withdraw(ctx, a.bob, id, first.ID, asker); !errors.Is(err, models.ErrNotFound) {
			t.Errorf("another's: %v", err)
		}
		must(a.answer(t, held, first, services.RequestAnswer{State: models.RequestGiven}))
		a.withdraw(t, first)
		a.wantState(t, first, models.RequestWithdrawn)
		a.wantState(t, second, models.RequestGiven)
		for range 2 {
			a.withdraw(t, second) // too late: he has it
		}
		a.wantState(t, second, models.RequestGiven)
		third := a.ask(t, a.carol, id)
		a.withdraw(t, third)
		a.wantState(t, third, models.RequestWithdrawn)
		a.wantAudit(t, id, models.AuditLockWithdrawn, "carol@example.com 192.0.2.2 ask: ", "carol@example.com 192.0.2.2 ask: ")
	})

	t.Run("withdrawn while it is given, nobody is left with the lock", func(t *testing.T) {
		for range 10 {
			id, held := a.held(t)
			r := a.ask(t, a.bob, id)
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = a.answer(t, held, r, services.RequestAnswer{State: models.RequestGiven}) })
			for range 2 {
				wg.Go(func() { a.withdraw(t, r) })
			}
			wg.Wait()
			now, status := a.look(t, r), must(a.LockStatus(ctx, a.bob, id))
			if now.State != models.RequestWithdrawn || status.Held && status.Holder.UserID == a.bob.ID {
				t.Errorf("%+v, %+v", now, status)
			}
			a.wantAudit(t, id, models.AuditLockWithdrawn, "bob@example.com 192.0.2.2 ask: ")
		}

		id, held := a.held(t)
		r := a.ask(t, a.bob, id)
		at := newProcesses(answeredBefore{a.store, sync.OnceFunc(func() {
			must(a.answer(t, held, r, services.RequestAnswer{State: models.RequestGiven}))
		})}, a.locks, secret)
		check(t, at.Withdraw(ctx, a.bob, id, r.ID, asker))
		if now, status := a.look(t, r), must(a.LockStatus(ctx, a.bob, id)); now.State != models.RequestWithdrawn || status.Held {
			t.Errorf("%+v, %+v", now, status)
		}
		a.wantAudit(t, id, models.AuditLockWithdrawn, "bob@example.com 192.0.2.2 ask: ")
	})

	t.Run("have an entry in the audit for what was done only", func(t *testing.T) {
		type step func(at *services.Processes, token string, r models.LockRequest) error
		withdrawn := func(at *services.Processes, _ string, r models.LockRequest) error {
			return at.Withdraw(ctx, r.By, r.ProcessID, r.ID, asker)
		}
		answered := func(state models.LockRequestState) step {
			return func(at *services.Processes, token string, r models.LockRequest) error {
				_, _, err := at.AnswerRequest(ctx, a.alice, r.ProcessID, token, r.ID, services.RequestAnswer{State: state})
				return err
			}
		}
		no, later := answered(models.RequestNo), answered(models.RequestLater)
		wantCounts := func(t *testing.T, id string, withdrawals, answers int) {
			t.Helper()
			for action, want := range map[string]int{models.AuditLockWithdrawn: withdrawals, models.AuditLockAnswered: answers} {
				got := slices.DeleteFunc(auditOf(t, a.store, action), func(e models.AuditEntry) bool { return e.Target != services.Resource(id) })
				if len(got) != want {
					t.Errorf("%d entries of %s, want %d: %+v", len(got), action, want, got)
				}
			}
		}
		for _, row := range []struct {
			name                 string
			given                bool
			first, second        step // the first is done while the second is under way
			conflict             bool
			withdrawals, answers int
		}{
			{"withdrawn twice", false, withdrawn, withdrawn, false, 1, 0},
			{"withdrawn twice when given", true, withdrawn, withdrawn, false, 1, 0},
			{"answered before it was withdrawn", false, no, withdrawn, false, 0, 1},
			{"put off before it was withdrawn", false, later, withdrawn, false, 1, 1},
			{"withdrawn before it was answered", false, withdrawn, no, true, 1, 0},
			{"withdrawn before it was put off", false, withdrawn, later, true, 1, 0},
			{"the same answer twice", false, no, no, false, 0, 1},
		} {
			t.Run(row.name, func(t *testing.T) {
				id, held := a.held(t)
				r := a.ask(t, a.bob, id)
				if row.given {
					must(a.answer(t, held, r, services.RequestAnswer{State: models.RequestGiven}))
				}
				at := newProcesses(answeredBefore{a.store, sync.OnceFunc(func() { check(t, row.first(a.Processes, held.Token, r)) })}, a.locks, secret)
				if err := row.second(at, held.Token, r); errors.As(err, &conflict) != row.conflict || err != nil && !row.conflict {
					t.Error(err)
				}
				wantCounts(t, id, row.withdrawals, row.answers)
			})
		}
		t.Run("the database fails", func(t *testing.T) {
			id, held := a.held(t)
			r, at := a.ask(t, a.bob, id), newProcesses(unstoredAnswers{a.store}, a.locks, secret)
			for _, do := range []step{withdrawn, no, later} {
				if err := do(at, held.Token, r); !errors.Is(err, models.ErrUnavailable) {
					t.Error(err)
				}
			}
			wantCounts(t, id, 0, 0)
		})
	})
}

// answeredBefore does something else just before it stores an answer, or an end.
type answeredBefore struct {
	*store.Store
	another func()
}

func (s answeredBefore) AnswerLockRequest(ctx context.Context, answer models.LockRequest) (models.LockRequest, bool, error) {
	s.another()
	return s.Store.AnswerLockRequest(ctx, answer)
}

func (s answeredBefore) EndLockRequest(ctx context.Context, id string, state models.LockRequestState, at time.Time) (bool, error) {
	s.another()
	return s.Store.EndLockRequest(ctx, id, state, at)
}
