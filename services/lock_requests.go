package services

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"slices"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
)

const (
	defaultAskTimeout = 2 * time.Minute
	defaultLater      = 5 * time.Minute

	requestsListed = 50               // of those that a holder sees
	requestPoll    = time.Second      // how often a wait reads the request although nothing woke it
	seenGrain      = 15 * time.Second // of LockRequest.SeenAt
)

type lockRequestStore interface {
	lockRequestReader
	lockRequestWriter
	User(ctx context.Context, id string) (models.User, error)
}

type lockRequestReader interface {
	WithBudget(ctx context.Context) context.Context
	LockRequest(ctx context.Context, id string) (models.LockRequest, error)
	PendingLockRequests(ctx context.Context, processID string, limit int) ([]models.LockRequest, error)
	// PendingCounts returns how many requests are pending, by the id of their process.
	PendingCounts(ctx context.Context) (map[string]int, error)
	LockRequestsToSettle(ctx context.Context, after string, limit int) ([]models.LockRequest, error)
}

type lockRequestWriter interface {
	AskForLock(ctx context.Context, r models.LockRequest) (stored models.LockRequest, created bool, err error)
	AnswerLockRequest(ctx context.Context, answer models.LockRequest) (now models.LockRequest, changed bool, err error)
	FetchLockRequest(ctx context.Context, id string, now time.Time) (fetched bool, err error)
	EndLockRequest(ctx context.Context, id string, state models.LockRequestState, at time.Time) (ended bool, err error)
	SeeLockRequest(ctx context.Context, id string, at time.Time) error
}

// AskOptions is what else there is to a request for a lock.
type AskOptions struct {
	Message string // for the holder
	Most    int    // the limit of ProcessLockOptions.Most
	Client  Client // for the audit
}

// Ask asks the holder of a process's lock for it. A user who asks again gets the pending request;
// then created is false. Errors:
//
//   - models.ErrNotFound: there is no such process,
//   - *models.RequestConflictError: the lock is free, or the user's own,
//   - *models.TooManyLocksError: the user has as many locks already.
//
// Without Redis it works with what this instance knows of the lock.
func (p *Processes) Ask(ctx context.Context, user models.UserRef, id string, opt AskOptions) (request models.LockRequest, created, degraded bool, err error) {
	if _, err := p.store.Process(ctx, id); err != nil {
		return request, false, false, err
	}
	status, err := p.locks.Status(ctx, Resource(id))
	switch {
	case err != nil:
		return request, false, false, err
	case !status.Held:
		return request, false, status.Degraded, &models.RequestConflictError{Field: "lock", Detail: "The lock is free. Take it."}
	case status.Holder.UserID == user.ID:
		return request, false, status.Degraded, &models.RequestConflictError{Field: "lock", Detail: "The lock is your own. Take it over, if you have lost its token."}
	}
	if err := p.checkLimit(ctx, user, opt.Most-1, opt.Most); err != nil {
		pending, known := p.pendingOf(ctx, user, id)
		if !known {
			return request, false, status.Degraded, err
		}
		return pending, false, status.Degraded, nil
	}
	now := time.Now().UTC()
	entry := opt.Client.entry(models.AuditLockAsked, user.Email, Resource(id), "of "+status.Holder.Email+because(opt.Message))
	entry.At = now
	auditing, _ := p.store.WithAudit(ctx, entry)
	request, created, err = p.store.AskForLock(auditing, models.LockRequest{
		ID: rand.Text(), ProcessID: id, By: user, Message: opt.Message, At: now, AnswerBy: now.Add(p.opt.AskTimeout), HolderGrant: status.Grant,
	})
	if err == nil && created {
		p.audits.tell(entry)
		p.tell(ctx, models.LockAsked, request, user, opt.Message, status.Holder)
	}
	return request, created, status.Degraded, err
}

// pendingOf is the request of a user that is pending already; known is false if there is none, or if
// that cannot be found out.
func (p *Processes) pendingOf(ctx context.Context, user models.UserRef, id string) (pending models.LockRequest, known bool) {
	all, err := p.store.PendingLockRequests(ctx, id, math.MaxInt32)
	if err != nil {
		return pending, false
	}
	i := slices.IndexFunc(all, func(r models.LockRequest) bool { return r.By.ID == user.ID })
	if i < 0 {
		return pending, false
	}
	return all[i], true
}

// tell publishes what happened to a request. by is who did it, zero if no user did.
func (p *Processes) tell(ctx context.Context, name string, r models.LockRequest, by models.UserRef, message string, holder models.Holder) {
	p.locks.PublishRequest(context.WithoutCancel(ctx), name, Resource(r.ProcessID), models.UserRef{ID: holder.UserID, Email: holder.Email}, models.LockRequestEvent{
		ID: r.ID, By: by, Message: message, State: r.State, Between: []string{r.By.ID, holder.UserID},
	})
}

// AskedLock is a request for a lock as its asker sees it. Lock is what Lock returns, once the
// request is given and as long as the asker has the lock.
type AskedLock struct {
	models.LockRequest
	Lock *ProcessLock
}

// Asked returns a request to its asker. It waits up to wait for a change. The first call after the
// lock was given extends it to 300 s: it has to come within 30 s. models.ErrNotFound if there is no
// such request of the user for the process; the cause of ctx if that ends a wait; otherwise the
// errors of Lock.
func (p *Processes) Asked(ctx context.Context, user models.UserRef, id, requestID string, wait time.Duration, most int) (AskedLock, error) {
	r, err := p.requestOf(ctx, user, id, requestID)
	if err != nil {
		return AskedLock{}, err
	}
	if wait > 0 && r.Pending() {
		if r, err = p.awaitChange(ctx, r, wait); err != nil {
			return AskedLock{}, err
		}
	}
	asked := AskedLock{LockRequest: r}
	if r.State == models.RequestGiven {
		asked.Lock, err = p.fetch(context.WithoutCancel(ctx), r, most)
		if asked.Lock == nil && err == nil && !r.Fetched { // too late
			asked.LockRequest, err = p.store.LockRequest(ctx, r.ID)
		}
	}
	return asked, err
}

// requestOf is a request of a user, who is noted to look at it.
func (p *Processes) requestOf(ctx context.Context, user models.UserRef, id, requestID string) (models.LockRequest, error) {
	r, err := p.store.LockRequest(ctx, requestID)
	if err == nil && (r.ProcessID != id || r.By.ID != user.ID) {
		err = fmt.Errorf("request %s of user %s for process %s: %w", requestID, user.ID, id, models.ErrNotFound)
	}
	if err == nil {
		p.see(ctx, r)
	}
	return r, err
}

// see notes that the asker looks. It fails silently: the asker looks again.
func (p *Processes) see(ctx context.Context, r models.LockRequest) {
	if now := time.Now(); r.Pending() && now.Sub(r.SeenAt) > seenGrain {
		_ = p.store.SeeLockRequest(ctx, r.ID, now)
	}
}

// awaitChange waits until a pending request is answered, or answered once more. Events of all
// instances wake it; without them it reads the request every second.
func (p *Processes) awaitChange(ctx context.Context, r models.LockRequest, wait time.Duration) (models.LockRequest, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	events := p.locks.Events(waiting)
	poll := time.NewTicker(requestPoll)
	defer poll.Stop()
	for {
		now, err := p.store.LockRequest(p.store.WithBudget(ctx), r.ID) // each look has its own
		if err != nil || now.State != r.State || !now.AnsweredAt.Equal(r.AnsweredAt) {
			return now, err
		}
		p.see(p.store.WithBudget(ctx), now)
		for woken := false; !woken; {
			select {
			case event, ok := <-events:
				if !ok {
					events = nil // the poll goes on
				}
				woken = ok && event.Request != nil && event.Request.ID == r.ID
			case <-poll.C:
				woken = true
			case <-waiting.Done():
				if ctx.Err() != nil {
					return now, context.Cause(ctx)
				}
				return now, nil
			}
		}
	}
}

// Withdraw takes a request back. A lock that was given and not fetched passes on; otherwise a
// request that is not pending stays as it is, and the audit has nothing of it. Errors are those of
// Asked.
func (p *Processes) Withdraw(ctx context.Context, user models.UserRef, id, requestID string, client Client) error {
	r, err := p.requestOf(ctx, user, id, requestID)
	entry := client.entry(models.AuditLockWithdrawn, user.Email, Resource(id), "")
	entry.At = time.Now().UTC()
	if err == nil && r.Pending() {
		r, err = p.close(ctx, r, models.RequestWithdrawn, entry)
	}
	if err == nil && r.State == models.RequestGiven && !r.Fetched { // perhaps just now
		return p.passOn(ctx, r, models.RequestWithdrawn, entry)
	}
	return err
}

// close ends a pending request that nobody answered, and returns what it is then: it may have been
// answered meanwhile. The entries of the audit are stored if, and only if, it ends it.
func (p *Processes) close(ctx context.Context, r models.LockRequest, state models.LockRequestState, entries ...models.AuditEntry) (models.LockRequest, error) {
	r.State, r.AnsweredAt = state, time.Now().UTC()
	now, changed, err := p.storeAnswer(ctx, r, entries...)
	if err == nil && changed {
		status, _ := p.locks.Status(ctx, Resource(r.ProcessID)) // who holds it hears of it
		p.tell(ctx, models.LockAnswered, now, models.UserRef{}, "", status.Holder)
	}
	return now, err
}

// storeAnswer is AnswerLockRequest, with the entries of the audit if that changes the request.
func (p *Processes) storeAnswer(ctx context.Context, answer models.LockRequest, entries ...models.AuditEntry) (now models.LockRequest, changed bool, err error) {
	auditing, _ := p.store.WithAudit(ctx, entries...)
	now, changed, err = p.store.AnswerLockRequest(auditing, answer)
	if err == nil && changed {
		p.audits.tell(entries...)
	}
	return now, changed, err
}

// RequestAnswer is a holder's answer: State is models.RequestGiven, RequestLater or RequestNo.
type RequestAnswer struct {
	State   models.LockRequestState
	Later   time.Duration // of RequestLater: until the next answer is due; 0 is 5 minutes
	Message string
	Client  Client // for the audit
}

// AnswerRequest answers a request under the lock that it asks for. A given lock is the asker's at
// once, and the holder's token ends. Errors:
//
//   - models.ErrNotFound: there is no such process, or no such request for it,
//   - models.ErrLockTokenRequired and *models.NotHeldError as in Replace,
//   - *models.RequestConflictError: the request has been answered in another way, or withdrawn.
func (p *Processes) AnswerRequest(ctx context.Context, user models.UserRef, id, token, requestID string, answer RequestAnswer) (r models.LockRequest, degraded bool, err error) {
	if _, err := p.store.Process(ctx, id); err != nil {
		return r, false, err
	}
	r, err = p.store.LockRequest(ctx, requestID)
	if err == nil && r.ProcessID != id {
		err = fmt.Errorf("request %s for process %s: %w", requestID, id, models.ErrNotFound)
	}
	if err != nil {
		return models.LockRequest{}, false, err
	}
	grant, degraded, err := p.tokens.Verify(ctx, Resource(id), user.ID, token)
	if err != nil {
		return models.LockRequest{}, degraded, p.notHeld(ctx, id, grant, err)
	}
	if !r.Pending() {
		return r, degraded, answered(r, answer.State)
	}
	holder := p.holderOf(user, grant)
	if answer.State == models.RequestGiven {
		entry := answer.Client.entry(models.AuditLockGiven, user.Email, Resource(id), "to "+r.By.Email+because(answer.Message))
		old := lock.Replaced{Grant: grant.Grant, How: models.LockGiven}
		r.Reply = answer.Message
		ended := p.endedBy(user, grant, models.LockGiven) // no reason: the message is the asker's alone
		r, err = p.give(ctx, r, old, entry, ended, holder)
		return r, degraded, err
	}
	r.State, r.Reply, r.AnsweredAt = answer.State, answer.Message, time.Now().UTC()
	detail := string(answer.State) + " to " + r.By.Email + because(answer.Message)
	if r.State == models.RequestLater {
		r.AnswerBy = r.AnsweredAt.Add(cmp.Or(answer.Later, defaultLater))
	}
	entry := answer.Client.entry(models.AuditLockAnswered, user.Email, Resource(id), detail)
	entry.At = r.AnsweredAt
	now, changed, err := p.storeAnswer(ctx, r, entry)
	switch {
	case err != nil:
		return models.LockRequest{}, degraded, err
	case !changed:
		return now, degraded, answered(now, answer.State)
	}
	p.tell(ctx, models.LockAnswered, now, user, answer.Message, holder)
	return now, degraded, nil
}

// answered is what a second answer gets: nothing, if it is the same.
func answered(r models.LockRequest, state models.LockRequestState) error {
	if r.State == state {
		return nil
	}
	detail := "The request has been answered: " + string(r.State) + "."
	if r.State == models.RequestWithdrawn || r.State == models.RequestExpired {
		detail = "The request is over: " + string(r.State) + "."
	}
	return &models.RequestConflictError{Field: "answer", Detail: detail}
}
