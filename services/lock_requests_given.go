package services

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
)

const (
	fetchTime  = 30 * time.Second // to fetch a lock that was given
	givenLease = fetchTime + 5*time.Second
)

// errAskerGone says that a lock cannot be given: the asker lost the right to have it.
var errAskerGone = errors.New("the asker may not lock any more")

// give makes the lock the asker's in place of an old grant, and then the request given. Safe to
// repeat, on any instance: the asker's token follows from the request, so that it is one grant.
func (p *Processes) give(ctx context.Context, r models.LockRequest, old lock.Replaced, entry models.AuditEntry, ended models.EndedLock, holder models.Holder) (models.LockRequest, error) {
	if err := p.mayBeGiven(ctx, r); err != nil {
		return r, err
	}
	taken, err := p.replaceHolder(ctx, p.askersRequest(r), old, entry, ended)
	if err != nil {
		var refused *models.NotAcquiredError
		if errors.As(err, &refused) {
			err = &models.NotHeldError{Status: refused.Status}
		}
		return r, err
	}
	return p.markGiven(ctx, r, taken, ended.End.By, holder)
}

// mayBeGiven closes the request of an asker who may not have the lock any more.
func (p *Processes) mayBeGiven(ctx context.Context, r models.LockRequest) error {
	user, err := p.store.User(ctx, r.By.ID)
	if err != nil && !errors.Is(err, models.ErrNotFound) {
		return err
	}
	if err == nil && !user.Disabled && models.HasRole(user.Roles, models.RoleEditor) {
		return nil
	}
	if _, err := p.close(ctx, r, models.RequestExpired, endedByItself(r, "its user may not lock any more")); err != nil {
		return err
	}
	return fmt.Errorf("%w: %w", errAskerGone, &models.RequestConflictError{Field: "answer", Detail: "The request is over: its user may not lock any more."})
}

// askersRequest asks for the lock in the asker's name, until it is fetched. It gives no reason: that
// is for everybody, and the message was for the holder.
func (p *Processes) askersRequest(r models.LockRequest) lock.Request {
	return lock.Request{
		Resource: Resource(r.ProcessID), TTL: givenLease, Token: p.askersTokens(r)[0],
		Holder: models.Holder{UserID: r.By.ID, Email: r.By.Email},
	}
}

// askersTokens are the tokens by which the asker's grant is known, with each of the secrets. No
// Idempotency-Key has a space.
func (p *Processes) askersTokens(r models.LockRequest) []string {
	first, others := p.idempotentTokens(r.By, r.ProcessID, "request "+r.ID)
	return append([]string{first}, others...)
}

// markGiven stores that a request was given a lock. If it was withdrawn or answered meanwhile, the
// lock is given back.
func (p *Processes) markGiven(ctx context.Context, r models.LockRequest, taken lock.Lock, by models.UserRef, holder models.Holder) (models.LockRequest, error) {
	ctx = context.WithoutCancel(ctx)
	r.State, r.AnsweredAt, r.Grant = models.RequestGiven, time.Now().UTC(), taken.Grant
	r.FetchBy = r.AnsweredAt.Add(fetchTime)
	now, changed, err := p.store.AnswerLockRequest(ctx, r)
	switch {
	case err == nil && changed:
		p.tell(ctx, models.LockAnswered, now, by, r.Reply, holder)
		return now, nil
	case err == nil && now.State == models.RequestGiven && now.Grant == taken.Grant: // by another instance
		return now, nil
	case errors.Is(err, models.ErrUnavailable): // the next round finds that the asker has the lock
		return now, err
	}
	p.locks.ReleaseAfter(ctx, taken.Claim)
	if err == nil {
		err = answered(now, models.RequestGiven)
	}
	return now, err
}

// fetch hands the lock that was given to its asker; nil if the asker came too late, or does not
// have it any more.
func (p *Processes) fetch(ctx context.Context, r models.LockRequest, most int) (*ProcessLock, error) {
	if !r.Fetched && !time.Now().Before(r.FetchBy) {
		return nil, p.passOn(ctx, r, models.RequestExpired, endedByItself(r, notFetched))
	}
	claim, taken, err := p.askersGrant(ctx, r, r.Grant)
	if err == nil && !r.Fetched {
		holder := models.Holder{UserID: r.By.ID, Email: r.By.Email, Since: r.AnsweredAt}
		taken, err = p.locks.ExtendFor(ctx, claim, holder, DefaultProcessTTL)
	}
	switch {
	case errors.Is(err, models.ErrNotHeld):
		return nil, nil
	case err != nil:
		return nil, err
	}
	if !r.Fetched {
		if _, err := p.store.FetchLockRequest(ctx, r.ID, time.Now()); err != nil {
			return nil, err
		}
		if now, err := p.store.LockRequest(ctx, r.ID); err != nil || !now.Fetched { // it passed on meanwhile
			return nil, err
		}
		if err := p.checkLimit(ctx, r.By, most, most); err != nil {
			p.locks.ReleaseAfter(ctx, claim)
			return nil, err
		}
	}
	granted, err := p.granted(ctx, r.By, r.ProcessID, taken, ProcessLockOptions{IdempotencyKey: r.ID})
	granted.Degraded = taken.Degraded
	return &granted, err
}

// askersGrant finds the token of the asker's grant. An instance that cannot ask Redis and does not
// know the grant takes the first one.
func (p *Processes) askersGrant(ctx context.Context, r models.LockRequest, grant string) (claim lock.Claim, held lock.Lock, err error) {
	for _, token := range p.askersTokens(r) {
		claim = lock.Claim{Resource: Resource(r.ProcessID), Grant: grant, Token: token}
		if held, err = p.locks.Held(ctx, claim); !errors.Is(err, models.ErrNotHeld) {
			break
		}
	}
	if errors.Is(err, models.ErrUnavailable) && !r.Fetched {
		claim.Token, err = p.askersTokens(r)[0], nil
	}
	return claim, held, err
}
