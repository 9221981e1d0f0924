package lock

import (
	"cmp"
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/services/redis"
)

// reconcile runs each time Redis answers again, before anything else is sent:
// first what was given back, then claims for the grants this instance still
// knows. The first to claim wins; the loser's token is refused at its next use.
func (l *Locker) reconcile(ctx context.Context) {
	l.settle(ctx)
	l.claimAll(ctx, l.table.alive()) // what fails, the beats claim
}

// catchUp runs beside the beats: a single call can fail without an outage, and
// what came up while Redis was returning was too late for reconcile.
func (l *Locker) catchUp(ctx context.Context) {
	if !l.redis.AnyAvailable() {
		return
	}
	l.settle(ctx)
	l.claimAll(ctx, l.table.degraded())
	l.peers.look(ctx, l.redis)
}

// claimAll claims so many grants that one after the other would take too long. What fails
// is found again by the next beats.
func (l *Locker) claimAll(ctx context.Context, all []localLock) {
	atOnce(all, func(known localLock) { _, _ = l.claim(redis.WithBudget(ctx), known) })
}

// atOnce does something about each of many, claimsAtOnce at a time.
func atOnce[T any](all []T, do func(T)) {
	var group errgroup.Group
	group.SetLimit(claimsAtOnce)
	for _, one := range all {
		group.Go(func() error { do(one); return nil })
	}
	_ = group.Wait()
}

// claim takes a known grant in Redis under its own token. It reports whether the
// grant stands there now; after an error that is not known.
func (l *Locker) claim(ctx context.Context, known localLock) (stands bool, err error) {
	sent := time.Now()
	left := known.lock.ends.Sub(sent)
	if left <= 0 {
		return false, nil
	}
	a := &attempt{l: l, grant: known.lock.Grant, block: 1, claims: known.claims(), held: sent.Sub(known.lock.began), req: Request{
		Resource: known.lock.Resource, TTL: left, Token: known.lock.Token, Holder: known.lock.Holder,
	}}
	got, err := l.runAcquire(ctx, a, false, known.epoch)
	if err != nil {
		return false, err
	}
	if got.code == lockRefused || got.grant != known.lock.Grant { // or its token has another grant, from another instance
		l.metrics.conflicts.Inc()
		lost := "a lock did not survive the outage: it was ended meanwhile, or expired"
		if got.grant != "" {
			lost = "a lock did not survive the outage: another holder has it"
		}
		l.opt.Logger.Warn(lost, "resource", known.lock.Resource, "holder", known.lock.Holder.UserID)
		l.table.end(known.lock.Resource, known.lock.Grant)
		l.groups.revoke(known.lock.Grant)
		return false, nil
	}
	if got.code == lockDone {
		l.groups.reclaimed(known.lock.Grant)
	}
	lock := got.lock(known.lock.Claim, sent)
	lock.Note = cmp.Or(lock.Note, known.lock.Note)
	stands, extended := l.table.confirm(known, lock, got.epoch)
	if !stands { // given back while it was claimed
		_, _ = l.run(ctx, l.scripts.release, lock.Resource, proofOf(lock.Claim))
		return false, nil
	}
	if got.code == lockRepeated && !extended && known.changed(left, got.remaining, sent) {
		if passedOn, err := l.Extend(ctx, lock.Claim, left); err == nil {
			lock = passedOn
		}
	}
	if known.lock.Note != "" {
		_, _ = l.Note(ctx, lock, known.lock.Note) // a repeat without it only gets a new token
	}
	return true, nil
}

// changed reports whether the time left was changed here while Redis was away, and is
// to be passed on: a longer one always, a shorter one if no other instance has extended the
// grant since this instance heard what Redis has.
func (l *localLock) changed(left, inRedis time.Duration, now time.Time) bool {
	const rounding = time.Second
	untouched := (inRedis - l.told.Sub(now)).Abs() < rounding
	return left-inRedis > rounding || (untouched && inRedis-left > rounding)
}

// claims is what a claim says of itself to lock_acquire.lua.
func (l *localLock) claims() string {
	if l.made {
		return "made"
	}
	return "claim"
}

// claimAgain claims a grant that Redis does not know although this instance does: made
// or extended without Redis, or forgotten by the server, whose epoch is new then.
func (l *Locker) claimAgain(ctx context.Context, claim Claim, got lockReply) (stands bool, err error) {
	known, ok := l.table.find(claim)
	if !ok || got.grant != "" || (!known.lock.Degraded && known.epoch == got.epoch) {
		return false, nil
	}
	return l.claim(ctx, known)
}

// alive are the grants that this instance made or took over and that have not ended.
func (t *lockTable) alive() []localLock {
	return t.living(func(*localLock) bool { return true })
}

// degraded are those of alive that were granted or extended without Redis.
func (t *lockTable) degraded() []localLock {
	return t.living(func(l *localLock) bool { return l.lock.Degraded })
}

func (t *lockTable) living(which func(*localLock) bool) []localLock {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	var live []localLock
	for resource := range t.locks {
		if l := t.live(now, resource); l != nil && which(l) {
			live = append(live, *l)
		}
	}
	return live
}

// confirm notes that a known grant stands in Redis; not if it has ended here
// meanwhile. If it was extended here meanwhile, Redis has to hear of that yet.
func (t *lockTable) confirm(known localLock, lock Lock, epoch string) (stands, extended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.live(time.Now(), lock.Resource)
	if l == nil || l.lock.Grant != lock.Grant {
		return false, false
	}
	l.told = lock.endsThere()
	if extended = l.lock.Degraded && !l.lock.ends.Equal(known.lock.ends); extended {
		lock.ends, lock.ExpiresAt, lock.Degraded = l.lock.ends, l.lock.ExpiresAt, true
	}
	lock.began, lock.Holder = l.beginning(lock), l.holder(lock)
	l.lock, l.epoch = lock, epoch
	return true, extended
}

func (t *lockTable) find(claim Claim) (localLock, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.live(time.Now(), claim.Resource)
	if l == nil || !l.heldBy(claim) {
		return localLock{}, false
	}
	return *l, true
}
