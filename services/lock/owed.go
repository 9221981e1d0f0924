package lock

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
)

type owedRelease struct {
	claim Claim
	until time.Time
	how   string // asAttempt, asPlace or asRelease
}

// settle sends what is owed: the releases and forces that Redis has not seen.
func (l *Locker) settle(ctx context.Context) {
	owed, forced := l.table.owes()
	atOnce(owed, func(owed owedRelease) {
		how := cmp.Or(owed.how, milliseconds(time.Until(owed.until)))
		if _, err := l.run(redis.WithBudget(ctx), l.scripts.release, owed.claim.Resource, proofOf(owed.claim), how); err == nil {
			l.table.paid(owed.claim.Grant)
		}
	})
	for _, userID := range l.table.owedUsers() {
		_ = l.ReleaseUser(ctx, userID) // owed anew if it fails
	}
	for grant, status := range forced {
		if _, err := l.run(ctx, l.scripts.force, status.Resource, "", grant); err == nil {
			l.table.paidForce(grant)
		}
	}
}

// owe keeps for when Redis returns what has ended here. A release is remembered there
// then until no instance can ask about the grant: an instance that extended it without Redis
// would claim it.
func (t *lockTable) owe(claim Claim, how string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(time.Now())
	t.oweLocked(claim, how)
}

func (t *lockTable) oweLocked(claim Claim, how string) {
	t.owed[claim.Grant] = owedRelease{claim: claim, until: time.Now().Add(t.maxHold), how: how}
}

// owes is what Redis has to hear: releases, and locks that were forced.
func (t *lockTable) owes() (owed []owedRelease, forced map[string]models.LockStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for grant, o := range t.owed {
		if time.Until(o.until) <= 0 { // no instance can ask about it any more
			delete(t.owed, grant)
			continue
		}
		if l := t.live(time.Now(), o.claim.Resource); o.how == asPlace && l != nil && l.lock.Grant == grant && l.lock.Degraded {
			continue // its claim needs the place
		}
		owed = append(owed, o)
	}
	return owed, maps.Clone(t.forced)
}

// userLooks is how often the locks of a disabled user are looked for when Redis is
// back: each time holdingBeat later, until all instances have claimed what they granted.
const userLooks = 5

func (t *lockTable) oweUser(userID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users[userID] = userLooks
}

// owedUsers are whose locks to look for now.
func (t *lockTable) owedUsers() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	users := slices.Collect(maps.Keys(t.users))
	for _, userID := range users {
		if t.users[userID]--; t.users[userID] == 0 {
			delete(t.users, userID)
		}
	}
	return users
}

func (t *lockTable) paid(grant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.owed, grant)
}

func (t *lockTable) paidForce(grant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.forced, grant)
}
