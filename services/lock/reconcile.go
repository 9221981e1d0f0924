package lock

import (
	"cmp"
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/services/redis"
)

// reconcile runs each time Redis answers again, before anything else is sent. It sends the
// outbox first, then reasserts the grants that this instance still knows. The first instance
// to reassert a lock wins; the token of the other grant is refused at its next use.
func (l *Locker) reconcile(ctx context.Context) {
	l.flush(ctx)
	l.reassertAll(ctx, l.table.living(time.Now(), anyLock)) // the heartbeats try again where it fails
}

// catchUp runs beside the heartbeats. A single call can fail without an outage, and a grant
// that was made while Redis was returning was too late for reconcile.
func (l *Locker) catchUp(ctx context.Context) {
	if !l.redis.AnyAvailable() {
		return
	}
	l.flush(ctx)
	l.reassertAll(ctx, l.table.living(time.Now(), (*entry).degraded))
	l.peers.look(ctx, l.redis)
}

// reassertAll reasserts many grants at a time. The next heartbeats find those that fail.
func (l *Locker) reassertAll(ctx context.Context, all []entry) {
	atOnce(all, func(known entry) { _, _ = l.reassert(redis.WithBudget(ctx), known) })
}

// atOnce does something about each of many, callsAtOnce at a time.
func atOnce[T any](all []T, do func(T)) {
	var group errgroup.Group
	group.SetLimit(callsAtOnce)
	for _, one := range all {
		group.Go(func() error { do(one); return nil })
	}
	_ = group.Wait()
}

// reassert takes the lock of a known grant in Redis again, under its own token. It reports
// whether the grant stands there now; after an error that is not known. It takes a free lock
// only if the server has forgotten the shard, or if the lease ended there by itself.
func (l *Locker) reassert(ctx context.Context, known entry) (stands bool, err error) {
	sent := time.Now()
	left := known.lock.trustedUntil.Sub(sent)
	if left <= 0 || !l.table.reasserting(known) {
		return false, nil
	}
	a := &attempt{l: l, grant: known.lock.Grant, block: 1, reasserts: &known, req: Request{
		Resource: known.lock.Resource, TTL: left, Token: known.lock.Token, Holder: known.lock.Holder,
	}}
	got, err := l.runAcquire(ctx, a, false)
	if err != nil {
		return false, err
	}
	if got.code == codeRefused || got.grant != known.lock.Grant { // or its token has another grant, from another instance
		l.conflict(known, got)
		return false, nil
	}
	if got.code == codeDone {
		l.groups.reasserted(known.lock.Grant)
	}
	lock := got.lock(known.lock.Claim, sent)
	lock.Metadata = cmp.Or(lock.Metadata, known.lock.Metadata)
	stands, extended := l.table.synced(known, lock, got.epoch)
	if !stands { // given back while it was reasserted
		op := op{kind: opTombstone, claim: lock.Claim}
		l.table.put(op)
		_ = l.send(ctx, op) // the next heartbeat tries again
		return false, nil
	}
	if known.lock.Degraded && got.code == codeRepeated && !extended && known.changed(left, got.remaining, sent) {
		if passedOn, err := l.Extend(ctx, lock.Claim, left); err == nil {
			lock = passedOn
		}
	}
	if known.lock.Metadata != "" {
		_, _ = l.Metadata(ctx, lock, known.lock.Metadata) // a repeat without it only gets a new token
	}
	return true, nil
}

// conflict ends a known grant that could not be reasserted.
func (l *Locker) conflict(known entry, got reply) {
	if l.table.knowsEnd(known.lock.Grant) { // given back while it was reasserted
		return
	}
	l.metrics.conflicts.Inc()
	lost := "a lock did not survive the outage: it was ended meanwhile, or expired"
	if got.grant != "" {
		lost = "a lock did not survive the outage: another holder has it"
	}
	l.opt.Logger.Warn(lost, "resource", known.lock.Resource, "holder", known.lock.Holder.UserID)
	l.table.end(known.lock.Resource, known.lock.Grant)
	l.groups.revoke(known.lock.Grant)
}

// changed reports whether the time left was changed here while Redis was away, and is
// to be passed on: a longer one always, a shorter one if no other instance has extended the
// grant since this instance was in sync with Redis.
func (l *entry) changed(left, inRedis time.Duration, now time.Time) bool {
	const rounding = time.Second
	untouched := (inRedis - l.syncedUntil.Sub(now)).Abs() < rounding
	return left-inRedis > rounding || (untouched && inRedis-left > rounding)
}

// reassertClaim reasserts a grant that Redis does not know although this instance does: made
// or extended without Redis, or forgotten by the server, whose epoch is new then. epoch is the one
// that the table had of it before Redis was asked: a heartbeat may have reasserted it since.
func (l *Locker) reassertClaim(ctx context.Context, claim Claim, epoch string, got reply) (stands bool, err error) {
	known, ok := l.table.find(claim)
	if !ok || !got.unknown(known.lock, epoch) {
		return false, nil
	}
	return l.reassert(ctx, known)
}

// unknown reports whether a refusal says that Redis does not know a grant that this instance does,
// with the epoch that it had of it.
func (r reply) unknown(known Lock, epoch string) bool {
	return r.grant == "" && (known.Degraded || epoch != r.epoch)
}
