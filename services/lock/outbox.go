package lock

import (
	"cmp"
	"context"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// opKind names the operations of release.lua, beside the release of a grant that only this
// instance knows, and those that wait in the outbox until Redis is back.
type opKind string

const (
	opShared    opKind = "shared"    // releases a grant that other instances may know of
	opTombstone opKind = "tombstone" // ... and that one of them may have without Redis, and would reassert
	opAbandon   opKind = "abandon"   // of an attempt that may have been granted, although its caller was not answered
	opLeave     opKind = "leave"     // leaves the queue: the waiter was granted the lock without Redis
	opForce     opKind = "force"     // ends the grant in its holder's place
	opForceUser opKind = "user"      // ends all locks of a user
)

// op is one thing for Redis to do about a grant or a user.
type op struct {
	kind   opKind
	claim  Claim
	userID string    // of opForceUser
	until  time.Time // when it is not needed any more; of opForceUser the last look, zero before the first
}

func (op op) key() string { return cmp.Or(op.claim.Grant, op.userID) }

// outboxMost is how many ops are kept. In an outage of hours each edit adds one.
const outboxMost = 1 << 16

// userLooks is how long the locks of a disabled user are looked for when Redis is back:
// until all instances have reasserted the grants they made.
const userLooks = claimGrace

// flush sends the outbox. The reply to an op acknowledges it.
func (l *Locker) flush(ctx context.Context) {
	atOnce(l.table.pending(time.Now()), func(op op) {
		ctx := redis.WithBudget(ctx)
		if op.kind == opForceUser {
			l.flushUser(ctx, op)
			return
		}
		_ = l.send(ctx, op) // the next heartbeat tries again
	})
}

// send sends an op about a grant.
func (l *Locker) send(ctx context.Context, op op) error {
	script, args := l.scripts.release, []string{credential(op.claim), string(op.kind)}
	if op.kind == opForce {
		script, args = l.scripts.force, []string{"", op.claim.Grant}
	}
	got, err := l.execOnce(ctx, script, l.keys.of(op.claim.Resource)[:3], args)
	if err != nil {
		return err
	}
	if got.code == codeDone { // of an abandoned attempt that is not known yet: another may keep its grant
		l.table.end(op.claim.Resource, op.claim.Grant)
	}
	l.table.ack(op)
	return nil
}

// tellEnd tells Redis of the end of a grant if it has still to be told, and reports whether it was.
func (l *Locker) tellEnd(ctx context.Context, grant string) (told bool, err error) {
	op, owed := l.table.owedEnd(grant)
	if !owed {
		return false, nil
	}
	err = l.send(ctx, op)
	return err == nil, err
}

// flushUser looks for the locks of a user once more.
func (l *Locker) flushUser(ctx context.Context, op op) {
	start := time.Now()
	if op.until.IsZero() {
		op.until = start.Add(userLooks)
		l.table.put(op)
	}
	ended, _ := l.ReleaseUser(ctx, op.userID) // puts it into the outbox anew if it fails
	for _, lock := range ended {
		l.opt.Ended(lock.Ended(models.LockEnd{How: models.LockUserDisabled, At: l.opt.Clock().UTC()}))
	}
	if !start.Before(op.until) {
		l.table.ack(op)
	}
}

// put keeps an op until Redis acknowledges it, or until no instance can ask about the
// grant any more. A later op about a grant replaces the one before.
func (t *localTable) put(op op) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(time.Now())
	t.putLocked(op)
}

func (t *localTable) putLocked(op op) {
	if t.alone {
		return
	}
	if op.kind != opForceUser && op.until.IsZero() {
		op.until = time.Now().Add(t.maxHold)
	}
	if len(t.outbox) >= outboxMost {
		t.forgetOne()
	}
	t.outbox[op.key()] = op
}

// forgetOne makes room in an outbox that a long outage has filled: of the releases any one goes,
// and its grant ends with its lease at the latest.
func (t *localTable) forgetOne() {
	for key, op := range t.outbox {
		if op.kind != opForce && op.kind != opForceUser {
			delete(t.outbox, key)
			return
		}
	}
}

// pending are the ops to send now.
func (t *localTable) pending(now time.Time) (ops []op) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepOutbox(now)
	for _, op := range t.outbox {
		l := t.live(now, op.claim.Resource)
		if op.kind == opLeave && l != nil && l.lock.Grant == op.claim.Grant && l.lock.Degraded {
			continue // to be reasserted, it needs its place
		}
		ops = append(ops, op)
	}
	return ops
}

// owedEnd is the op that ends a grant, if the outbox has one.
func (t *localTable) owedEnd(grant string) (owed op, ok bool) {
	if grant == "" {
		return owed, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	owed, ok = t.outbox[grant]
	return owed, ok && owed.kind != opLeave
}

// ack takes an op out, unless another has replaced it meanwhile.
func (t *localTable) ack(op op) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.outbox[op.key()] == op {
		delete(t.outbox, op.key())
	}
}

func (t *localTable) sweepOutbox(now time.Time) {
	for key, op := range t.outbox {
		if op.kind != opForceUser && !now.Before(op.until) {
			delete(t.outbox, key)
		}
	}
}
