package services

import (
	"context"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
)

//go:embed lua/*.lua
var luaFiles embed.FS

// lockShards is how many hash tags the locks are spread over. All keys of a lock
// and its shard's index and fence are in one Cluster slot.
const lockShards = 16

type lockScripts struct {
	acquire, release, extend, status, force, note, beat, list *rueidis.Lua
}

func loadLockScripts() lockScripts {
	common := luaSource("lock_common")
	load := func(name string) *rueidis.Lua { return rueidis.NewLuaScript(common + luaSource(name)) }
	return lockScripts{
		acquire: load("lock_acquire"), release: load("lock_release"), extend: load("lock_extend"),
		status: load("lock_status"), force: load("lock_force"), note: load("lock_note"), beat: load("lock_beat"),
		list: rueidis.NewLuaScript(luaSource("lock_list")),
	}
}

// luaSource is the text of an embedded script.
func luaSource(name string) string {
	text, err := luaFiles.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err) // the name is a constant of this package
	}
	return string(text)
}

func shardOf(resource string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(resource)) // never fails
	return int(h.Sum32() % lockShards)
}

func (l *Locker) shardKey(shard int, name string) string {
	return l.redis.Key("{" + strconv.Itoa(shard) + "}" + name)
}

func (l *Locker) keys(resource string) []string {
	shard := shardOf(resource)
	return []string{
		l.shardKey(shard, "lock:"+resource), l.shardKey(shard, "queue:"+resource), l.shardKey(shard, "waiters:"+resource),
		l.shardKey(shard, "locks"), l.shardKey(shard, "shard"), l.shardKey(shard, "instances"),
	}
}

// runAcquire sends an attempt. A claim takes a free lock only if the shard's
// epoch is no longer knownEpoch, that is, if the server has forgotten it.
func (l *Locker) runAcquire(ctx context.Context, a *attempt, queue bool, knownEpoch string) (lockReply, error) {
	instance := ""
	if queue {
		instance = l.instance
	}
	claim := ""
	if a.claims {
		claim = "1"
	}
	send := func() (lockReply, error) {
		return l.run(ctx, l.scripts.acquire, a.req.Resource, hashToken(a.req.Token), a.grant, milliseconds(a.req.TTL),
			writeHolder(a.req.Holder), strconv.Itoa(a.block), instance, a.arrival, knownEpoch, l.clock.after(time.Now(), l.redis.opt.Timeout), claim)
	}
	got, err := send()
	if err == nil && got.code == lockTooLate { // or the server's clock was put forward: the reply told it
		got, err = send()
	}
	if err == nil && got.code == lockTooLate {
		return got, fmt.Errorf("acquire %s: too late: %w", a.req.Resource, models.ErrUnavailable)
	}
	return got, err
}

// storedHolder is a holder as the scripts keep it; since is the grant's.
type storedHolder struct {
	UserID string `json:"userId"`
	Email  string `json:"email"`
	Reason string `json:"reason"`
}

func writeHolder(h models.Holder) string {
	doc, _ := json.Marshal(storedHolder{h.UserID, h.Email, h.Reason}) // strings only
	return string(doc)
}

func readHolder(doc string, sinceMilli int64) models.Holder {
	var h storedHolder
	_ = json.Unmarshal([]byte(doc), &h) // "" when the lock is free
	return models.Holder{UserID: h.UserID, Email: h.Email, Reason: h.Reason, Since: time.UnixMilli(sinceMilli).UTC()}
}

// The codes of a lock script's reply.
const (
	lockRefused    = 0 // not acquired, not held, or free
	lockDone       = 1
	lockRepeated   = 2 // acquire: this token had the grant already
	lockOtherFence = 2 // force: another grant is there
	lockTooLate    = 3 // acquire: executed after its sender had given up
)

// lockReply is what every lock script returns; the lock's fields are empty when
// it is free.
type lockReply struct {
	code      int64
	tokenHash string
	grant     string
	fence     int64
	since     time.Time
	remaining time.Duration
	holder    models.Holder
	note      string
	waiting   int
	epoch     string
	extra     string // acquire: arrival; release and force: who has it next; extend: the first fence reserved
	now       int64  // the server's, in milliseconds
}

func readLockReply(msg rueidis.RedisMessage) (lockReply, error) {
	fields, err := msg.ToArray()
	if err != nil || len(fields) != 12 {
		return lockReply{}, fmt.Errorf("read lock reply of %d fields: %w: %w", len(fields), models.ErrUnavailable, err)
	}
	text := func(i int) string { s, _ := fields[i].ToString(); return s }
	number := func(i int) int64 { n, _ := fields[i].AsInt64(); return n }
	return lockReply{
		code: number(0), tokenHash: text(1), grant: text(2), fence: number(3),
		since: time.UnixMilli(number(4)).UTC(), remaining: time.Duration(number(5)) * time.Millisecond,
		holder: readHolder(text(6), number(4)), note: text(7), waiting: int(number(8)), epoch: text(9), extra: text(10), now: number(11),
	}, nil
}

func (r lockReply) heldBy(claim LockClaim) bool {
	return r.code == lockDone && r.grant == claim.Grant &&
		subtle.ConstantTimeCompare([]byte(r.tokenHash), []byte(hashToken(claim.Token))) == 1
}

func (r lockReply) status(resource string) models.LockStatus {
	s := models.LockStatus{Resource: resource, Held: r.grant != "", Waiting: r.waiting}
	if s.Held {
		s.Holder, s.Grant, s.Fence, s.TTL = r.holder, r.grant, &r.fence, r.remaining
		s.ExpiresAt = time.Now().Add(r.remaining).UTC()
	}
	return s
}

// lock is the reply as a grant. sent is the instant before the request left.
func (r lockReply) lock(claim LockClaim, sent time.Time) Lock {
	claim.Grant = r.grant // a repeated token has its first grant
	return Lock{
		LockClaim: claim, Holder: r.holder, Fence: &r.fence, TTL: r.remaining, ExpiresAt: time.Now().Add(r.remaining).UTC(),
		Note: r.note, Repeated: r.code == lockRepeated, ends: sent.Add(r.remaining - drift(r.remaining)),
	}
}

// drift is how much earlier than the server a lease ends here: 0.2 % for clocks
// that run at different speeds, and 2 ms for their grain.
func drift(ttl time.Duration) time.Duration { return ttl/500 + 2*time.Millisecond }
