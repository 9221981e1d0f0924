package lock

import (
	"crypto/subtle"
	"strconv"
	"time"
)

// leastEarly is what must be left of a pushed lease to begin under it.
const leastEarly = 50 * time.Millisecond

// pushedGrant is a grant as the message tells of it that wakes its waiter.
type pushedGrant struct {
	grant storedGrant
	epoch string
}

// shardMark is what an answered beat proves about a shard in which this instance
// waits: what has a higher fence in that epoch was granted after sent, and lasts until
// the beat is waiterAlive old.
type shardMark struct {
	sent  time.Time // before the beat
	fence int64     // the highest when it was executed
	epoch string
}

// markOf reads a shard's value as scripts answer it.
func markOf(sent time.Time, shard string) shardMark {
	if len(shard) < grantSince {
		return shardMark{}
	}
	fence, err := strconv.ParseInt(shard[:grantSince], 10, 64)
	if err != nil {
		return shardMark{}
	}
	return shardMark{sent: sent, fence: fence, epoch: shard[grantSince:]}
}

func (w *lockWaiters) mark(shard int, mark shardMark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.beaten[shard] = mark
}

func (w *lockWaiters) marked(shard int) shardMark {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.beaten[shard]
}

// granted is told of a grant to one of this instance's waiters.
func (w *lockWaiters) granted(message string) {
	if len(message) < epochLength {
		return
	}
	if g, ok := readGrant(message[epochLength:]); ok {
		w.tell(g.id, &pushedGrant{grant: g, epoch: message[:epochLength]})
	}
}

// begin is the lock of a pushed grant, for a holder who extends it by itself: it need
// not wait until the grant is confirmed. The message may have been on its way for any
// time, so that the lease is not counted from it but from the latest beat, which was
// before the grant. If that is not sure, or long ago, ok is false: ask.
func (l *Locker) begin(a *attempt, pushed *pushedGrant) (lock Lock, ok bool) {
	if !a.extends || pushed == nil {
		return Lock{}, false
	}
	mark, g := l.waiters.marked(shardOf(a.req.Resource)), &pushed.grant
	lease := min(waiterAlive, a.req.TTL)
	ends := mark.sent.Add(lease - drift(lease))
	left := time.Until(ends)
	if pushed.epoch != mark.epoch || g.fence <= mark.fence || left < leastEarly ||
		subtle.ConstantTimeCompare([]byte(g.tokenHash), []byte(hashLockToken(a.req.Token))) != 1 {
		return Lock{}, false
	}
	lock = Lock{
		Claim: a.claim(), Holder: g.holder(), Fence: &g.fence, TTL: left, ExpiresAt: l.opt.Clock().Add(left).UTC(),
		began: mark.sent, ends: ends, unconfirmed: true,
	}
	l.table.learn(lock, pushed.epoch, true)
	return lock, true
}
