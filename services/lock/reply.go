package lock

import (
	"crypto/subtle"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
)

// The codes of a lock script's reply.
const (
	codeRefused    = 0 // not acquired, not held, or free
	codeDone       = 1
	codeRepeated   = 2 // acquire, replace: this token had the grant already
	codeGivenBack  = 2 // extend: there is a waiter
	codeOtherFence = 2 // force: another grant is there
	codeTooLate    = 3 // acquire, replace: executed after its sender had given up
)

// reply is what a script about one lock answers; the lock's fields are empty
// when it is free. Beat and list answer otherwise.
type reply struct {
	code int64
	record
	remaining time.Duration
	metadata  string
	waiting   int
	epoch     string
	extra     string    // acquire: arrival; release and force: who has it next; extend: the first fence reserved
	now       int64     // the server's, in milliseconds
	at        time.Time // by this instance's wall clock
	extended  int64     // status, queue, replace: when the lock was extended last, the server's milliseconds; 0: not yet
	queue     []models.LockWaiter
}

func readReply(msg rueidis.RedisMessage) (reply, error) {
	if msg.IsInt64() { // the shortcut of release
		code, _ := msg.AsInt64()
		return reply{code: code}, nil
	}
	if msg.IsString() { // the shortcut of acquire: the fence, which is the server's time, and the shard as it was
		return readShortcut(msg)
	}
	fields, err := msg.ToArray()
	if err != nil || len(fields) < 8 {
		return reply{}, fmt.Errorf("read lock reply of %d fields: %w: %w", len(fields), models.ErrUnavailable, err)
	}
	text := func(i int) string { s, _ := fields[i].ToString(); return s }
	number := func(i int) int64 { n, _ := fields[i].AsInt64(); return n }
	r := reply{
		code: number(0), remaining: time.Duration(number(2)) * time.Millisecond, waiting: int(number(3)),
		epoch: text(4), extra: text(5), metadata: text(6), now: number(7),
	}
	if len(fields) > 8 {
		r.extended, _ = strconv.ParseInt(text(8), 10, 64) // '' is 0
	}
	if len(fields) > 9 {
		waiters, err := fields[9].AsStrSlice()
		if err != nil {
			return reply{}, fmt.Errorf("read a queue: %w: %w", models.ErrUnavailable, err)
		}
		r.queue = readWaiters(waiters)
	}
	if grant := text(1); grant != "" {
		var ok bool
		if r.record, ok = readRecord(grant); !ok {
			return reply{}, fmt.Errorf("read a grant of %d characters: %w", len(grant), models.ErrUnavailable)
		}
	}
	return r, nil
}

func readShortcut(msg rueidis.RedisMessage) (reply, error) {
	text, _ := msg.ToString()
	micros, shard, ok := readShard(text)
	_, epoch, shardOK := readShard(shard)
	if !ok || !shardOK {
		return reply{}, fmt.Errorf("read lock reply of %d characters: %w", len(text), models.ErrUnavailable)
	}
	r := reply{code: codeDone, epoch: epoch, now: micros / 1000}
	r.fence, r.holder.Since = micros, time.UnixMilli(r.now).UTC()
	return r, nil
}

func (r reply) heldBy(claim Claim) bool {
	return r.code == codeDone && r.grant == claim.Grant &&
		subtle.ConstantTimeCompare([]byte(r.tokenHash), []byte(hashToken(claim.Token))) == 1
}

func (r reply) status(resource string) models.LockStatus {
	s := models.LockStatus{Resource: resource, Held: r.grant != "", Waiting: r.waiting}
	if s.Held {
		s.Holder, s.Grant, s.Fence, s.TTL = r.holder, r.grant, &r.fence, r.remaining
		s.ExpiresAt = r.at.Add(r.remaining).UTC()
		s.ActiveAt = r.holder.Since
		if extended := time.UnixMilli(r.extended).UTC(); extended.After(s.ActiveAt) {
			s.ActiveAt = extended
		}
	}
	return s
}

// lock is the reply as a grant. sent is the instant before the request left.
func (r reply) lock(claim Claim, sent time.Time) Lock {
	claim.Grant = r.grant // a repeated token has its first grant
	return Lock{
		Claim: claim, Holder: r.holder, Fence: &r.fence, TTL: r.remaining, ExpiresAt: r.at.Add(r.remaining).UTC(),
		Metadata: r.metadata, Repeated: r.code == codeRepeated,
		grantedAt: sent.Add(r.holder.Since.Sub(time.UnixMilli(r.now))), trustedUntil: sent.Add(r.remaining - drift(r.remaining)),
	}
}

// drift is how much earlier than the server a lease ends here: 0.2 % for clocks
// that run at different speeds, and 2 ms for their grain.
func drift(ttl time.Duration) time.Duration { return ttl/500 + 2*time.Millisecond }
