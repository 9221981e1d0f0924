package services

import (
	"context"
	"errors"
	mathrand "math/rand/v2"
	"slices"
	"time"

	"gatehouse/internal/background"
	"gatehouse/models"
	"gatehouse/services/lock"
)

const (
	settleInterval = time.Second
	settleMost     = 200 // requests in one round
	// present is for how long an asker who looked is taken to wait for the lock.
	present = time.Minute
	// patience is how long a request stays whose asker does not look, when its answer is due and
	// the protection is over.
	patience = 10 * time.Minute
)

// KeepSettling settles requests for locks that no user settles, until stop is called: about once a
// second, on every instance, and when a lock is given back there. Who comes first:
//
//   - Requests that wait in the lock's queue (ProcessLockOptions.Wait) have a free lock at once.
//   - Then it goes to the first asker who looked at the request during the last minute. A newcomer
//     who locks the process before that has it, and the requests wait for that holder: this can be
//     in the second after the lock has ended in another way than by being given back, or after the
//     request was made.
//   - A lock that is held passes to the first asker once one's AnswerBy is past, when its protection
//     is over, too. Those who wait in the queue stay there: they wait for a lock that is given back.
//   - What was given and is not fetched in 30 s passes to the next asker, and is free without one.
//
// A request is closed if its asker may not lock any more, has the lock already, or stays away.
//
// Without Redis an instance gives only what it knows itself: locks that its own table has, or whose
// end it observed. Its listeners hear from here that requests at other instances have changed
// (models.LockWaiting), as long as there are fewer than 200.
//
// stop waits until a round under way has ended; if its context ends first, stop returns the cause.
func (p *Processes) KeepSettling() (stop func(context.Context) error) {
	return background.Run(func(life context.Context) {
		after := ""
		for {
			due := time.After(p.settleEvery*3/4 + mathrand.N(p.settleEvery/2)) // not in step with other instances
			for due != nil {
				select {
				case <-due:
					due = nil
					after = p.settleRound(life, after)
				case <-p.freed:
					p.settleRound(life, "")
				case <-life.Done():
					return
				}
			}
		}
	})
}

// settleRound looks at some requests behind a process, and returns where to go on. What fails is
// tried again in a later round.
func (p *Processes) settleRound(ctx context.Context, after string) (next string) {
	requests, err := p.store.LockRequestsToSettle(ctx, after, settleMost)
	if err != nil {
		return ""
	}
	more := len(requests) == settleMost
	if after == "" && !more {
		for _, id := range p.seen.changed(requests) {
			p.locks.TellWaiting(Resource(id))
		}
	}
	for len(requests) > 0 {
		id := requests[0].ProcessID
		end := slices.IndexFunc(requests, func(r models.LockRequest) bool { return r.ProcessID != id })
		if end < 0 {
			end = len(requests)
		}
		if err := p.settle(ctx, requests[:end]); err != nil && ctx.Err() == nil && !errors.Is(err, models.ErrUnavailable) {
			p.opt.Logger.Warn("a request for a lock was not settled", "process", id, "error", err)
		}
		next, requests = id, requests[end:]
	}
	if !more {
		return ""
	}
	return next
}

// settle does the next step about the requests for one process, first asked first.
func (p *Processes) settle(ctx context.Context, requests []models.LockRequest) error {
	now := time.Now()
	pending := requests[:0:0]
	for _, r := range requests {
		switch {
		case r.Pending():
			pending = append(pending, r)
		case !now.Before(r.FetchBy):
			return p.passOn(ctx, r, models.RequestExpired, endedByItself(r, notFetched))
		default:
			return nil // it is the asker's turn
		}
	}
	status, err := p.locks.Status(ctx, Resource(requests[0].ProcessID))
	if err != nil {
		return err
	}
	for _, r := range pending {
		switch {
		case status.Held && r.By.ID == status.Holder.UserID:
			return p.settleHolders(ctx, r, status)
		case now.After(later(r.SeenAt, r.AnswerBy).Add(p.opt.Protection + patience)):
			_, err = p.close(ctx, r, models.RequestExpired, endedByItself(r, "its user stayed away"))
			return err
		}
	}
	if !status.Held {
		return p.giveFree(ctx, pending, status.Degraded)
	}
	return p.giveUnanswered(ctx, pending, status)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// settleHolders closes the request of a user who has the lock by now. If the grant is the one that
// was made for the request, an instance was interrupted between that and storing it.
func (p *Processes) settleHolders(ctx context.Context, r models.LockRequest, status models.LockStatus) error {
	claim, held, err := p.askersGrant(ctx, r, status.Grant)
	switch {
	case err == nil && held.Grant == status.Grant:
		held.Claim = claim
		_, err = p.markGiven(ctx, r, held, models.UserRef{}, models.Holder{})
		return err
	case err != nil && !errors.Is(err, models.ErrNotHeld):
		return err
	}
	_, err = p.close(ctx, r, models.RequestWithdrawn, endedByItself(r, "its user has the lock"))
	return err
}

// notFetched is why a request ends whose asker was given the lock.
const notFetched = "not fetched in time"

// endedByItself is what the audit says of a request that no user ended.
func endedByItself(r models.LockRequest, why string) models.AuditEntry {
	return models.AuditEntry{At: time.Now().UTC(), Action: models.AuditRequestEnded, Actor: r.By.Email, Target: Resource(r.ProcessID), Detail: why}
}

// giveFree gives a free lock to the first asker who is there.
func (p *Processes) giveFree(ctx context.Context, pending []models.LockRequest, degraded bool) error {
	for _, r := range pending {
		if time.Since(r.SeenAt) > present || degraded && !p.locks.KnowsEnd(r.HolderGrant) {
			continue
		}
		if err := p.mayBeGiven(ctx, r); err != nil {
			return gone(err)
		}
		taken, err := p.locks.TryAcquire(ctx, p.askersRequest(r))
		if errors.Is(err, models.ErrNotAcquired) { // by a newcomer, or by the queue
			return nil
		}
		if err != nil {
			return err
		}
		entry := models.AuditEntry{Action: models.AuditLockGiven, Actor: r.By.Email, Target: Resource(r.ProcessID), Detail: "it became free"}
		if err := p.audits.add(ctx, entry); err != nil {
			p.locks.ReleaseAfter(ctx, taken.Claim)
			return err
		}
		_, err = p.markGiven(ctx, r, taken, models.UserRef{}, models.Holder{})
		return overtaken(err)
	}
	return nil
}

// giveUnanswered gives a held lock to the first asker, once its holder has left any request
// unanswered and gave no sign of life for the protection. So an asker who was told to wait is not
// overtaken.
func (p *Processes) giveUnanswered(ctx context.Context, pending []models.LockRequest, status models.LockStatus) error {
	due := slices.IndexFunc(pending, func(r models.LockRequest) bool { return !time.Now().Before(r.AnswerBy) })
	if due < 0 {
		return nil
	}
	r, unanswered := pending[0], pending[due].By.Email
	active, _, err := p.activeAt(ctx, r.ProcessID, status)
	if err != nil || time.Now().Before(active.Add(p.opt.Protection)) {
		return err
	}
	entry := models.AuditEntry{
		Action: models.AuditLockGiven, Actor: r.By.Email, Target: Resource(r.ProcessID), Detail: "no answer from " + status.Holder.Email + toOther(unanswered, r),
	}
	old := lock.Replaced{Grant: status.Grant, Idle: p.opt.Protection, How: models.LockGiven}
	end := models.LockEnd{How: models.LockGiven, Reason: "no answer to the request of " + unanswered}
	_, err = p.give(ctx, r, old, entry, status.Ended(end), status.Holder)
	return overtaken(gone(err))
}

// toOther names who was not answered, if that is not who is given the lock.
func toOther(unanswered string, given models.LockRequest) string {
	if unanswered == given.By.Email {
		return ""
	}
	return " to " + unanswered
}

// passOn ends a lock that was given and not fetched: the next asker has it, or it is free. The
// entries of the audit are stored if, and only if, it ends it.
func (p *Processes) passOn(ctx context.Context, r models.LockRequest, state models.LockRequestState, entries ...models.AuditEntry) error {
	auditing, _ := p.store.WithAudit(ctx, entries...)
	ended, err := p.store.EndLockRequest(auditing, r.ID, state, time.Now().UTC())
	if err != nil || !ended {
		return err
	}
	p.audits.tell(entries...)
	r.State = state
	p.tell(ctx, models.LockAnswered, r, models.UserRef{}, "", models.Holder{})
	claim, held, err := p.askersGrant(ctx, r, r.Grant)
	if err != nil || held.Grant == "" {
		return overtaken(err)
	}
	pending, err := p.store.PendingLockRequests(ctx, r.ProcessID, requestsListed)
	if err != nil {
		return err
	}
	for _, next := range pending {
		entry := models.AuditEntry{
			Action: models.AuditLockGiven, Actor: next.By.Email, Target: Resource(r.ProcessID), Detail: r.By.Email + " did not fetch it",
		}
		old := lock.Replaced{Grant: r.Grant, How: models.LockExpired}
		ended := models.EndedLock{
			Grant: r.Grant, Resource: Resource(r.ProcessID), Holder: held.Holder, Fence: held.Fence, End: models.LockEnd{How: models.LockExpired},
		}
		_, err = p.give(ctx, next, old, entry, ended, models.Holder{})
		if !errors.Is(err, errAskerGone) {
			return overtaken(err)
		}
	}
	p.locks.ReleaseAfter(ctx, claim)
	return nil
}

// gone is an error, unless it says that the asker may not have the lock any more: the next round
// looks at the next one.
func gone(err error) error {
	if errors.Is(err, errAskerGone) {
		return nil
	}
	return err
}

// overtaken is an error, unless it says that something else has happened to the lock or the request
// in the meantime.
func overtaken(err error) error {
	var conflict *models.RequestConflictError
	if errors.Is(err, models.ErrNotHeld) || errors.Is(err, models.ErrNotAcquired) || errors.As(err, &conflict) {
		return nil
	}
	return err
}
