package lock

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
)

//go:embed lua/*.lua
var lockScriptFiles embed.FS

// lockShards is how many hash tags the locks are spread over. All keys of a lock
// and its shard's index and fence are in one Cluster slot.
const lockShards = 16

type lockScripts struct {
	acquire, release, extend, status, force, note, beat, list, count *rueidis.Lua
}

// loadLockScripts puts what is the same at every call into the scripts.
func loadLockScripts(events, ends string, maxHold time.Duration) lockScripts {
	constants := strings.NewReplacer(
		"ALIVE", milliseconds(waiterAlive), "CONFIRM", milliseconds(waiterConfirm), "LONGEST", milliseconds(maxHold),
		"GRACE", milliseconds(claimGrace), "EVENTS", strconv.Quote(events), "ENDS", strconv.Quote(ends),
	)
	load := func(name string, before ...string) *rueidis.Lua {
		text := ""
		for _, part := range append(before, "common", name) {
			text += lockScript(part)
		}
		return rueidis.NewLuaScript(constants.Replace(text))
	}
	return lockScripts{
		acquire: load("acquire", "acquire_shortcut"), release: load("release", "release_shortcut"),
		extend: load("extend"), status: load("status"), force: load("force"), note: load("note"),
		beat: load("beat"), list: load("list"), count: load("count"),
	}
}

// lockScript is the text of an embedded script.
func lockScript(name string) string {
	text, err := lockScriptFiles.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err) // the name is a constant of this package
	}
	return string(text)
}

// random128 is a text of 128 random bits: an id that never comes again.
func random128() string {
	var id [epochLength / 2]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

func shardOf(resource string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(resource)) // never fails
	return int(h.Sum32() % lockShards)
}

// lockKeys are what the keys of locks start with or, of a shard, what they are.
type lockKeys [lockShards]struct{ lock, queue, index, fence, forgot string }

func newLockKeys(rdb *redis.Client) *lockKeys {
	var keys lockKeys
	for shard := range keys {
		prefix := rdb.Key("{" + strconv.Itoa(shard) + "}")
		keys[shard].lock, keys[shard].queue, keys[shard].index = prefix+"lock:", prefix+"queue:", prefix+"locks"
		keys[shard].fence, keys[shard].forgot = prefix+"fence", prefix+"forgot"
	}
	return &keys
}

// of are the keys of a resource's lock, its queue, its shard's index, highest fence, and
// whether it was forgotten; only acquire needs the last two.
func (k *lockKeys) of(resource string) []string { return k.in(shardOf(resource), resource) }

func (k *lockKeys) in(shard int, resource string) []string {
	s := &k[shard]
	return []string{s.lock + resource, s.queue + resource, s.index, s.fence, s.forgot}
}

// runAcquire sends an attempt. A claim takes a free lock only if the shard's
// epoch is no longer knownEpoch, that is, if the server has forgotten it, or if the
// lease ended there by itself.
func (l *Locker) runAcquire(ctx context.Context, a *attempt, queue bool, knownEpoch string) (lockReply, error) {
	args := []string{
		a.proof() + writeGrant(a.req.Resource, a.req.Holder), milliseconds(a.req.TTL), l.givenUp(ctx),
		strconv.Itoa(a.block), random128(), "",
	}
	switch epoch, living := l.table.knows(time.Now(), a.req.Resource); {
	case epoch == "":
	case !living && l.peers.none():
		args[5] = "free"
	default:
		args[5] = "1"
	}
	switch {
	case a.claims != "":
		args = append(args, "", "", a.claims, knownEpoch, milliseconds(a.held))
	case queue:
		args = append(args, l.instance, a.arrival)
	}
	keys := l.keys.of(a.req.Resource)
	got, err := l.exec(ctx, l.scripts.acquire, keys, args)
	if err == nil && got.code == lockTooLate { // or the server's clock was put forward: the reply told it
		args[2] = l.givenUp(ctx)
		got, err = l.exec(ctx, l.scripts.acquire, keys, args)
	}
	switch {
	case err == nil && got.code == lockTooLate:
		return got, fmt.Errorf("acquire %s: too late: %w", a.req.Resource, models.ErrUnavailable)
	case err == nil && got.code == lockDone && got.grant == "": // the shortcut's reply leaves out what is known here
		got.grant, got.holder, got.remaining = a.grant, a.req.Holder, a.req.TTL
		got.holder.Since = got.since
	}
	return got, err
}

// givenUp is when the caller stops to wait for a call that begins now, in the
// server's time. What it sends after that finds the call executed, or never to be.
func (l *Locker) givenUp(ctx context.Context) string {
	now, patience := time.Now(), l.redis.Timeout()
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, deadline.Sub(now))
	}
	return l.clock.after(now, patience)
}

// Where the parts of a grant's text are, as the scripts keep it.
const (
	grantSince = 16
	grantID    = grantSince + 13
	grantToken = grantID + 32
	grantRest  = grantToken + 43

	epochLength = 32
)

// writeGrant is the end of a grant's text, after fence, since, id and hash of token:
// the resource and its holder, each part with its length before it.
func writeGrant(resource string, h models.Holder) string {
	text := make([]byte, 0, len(resource)+len(h.UserID)+len(h.Email)+len(h.Reason)+16)
	for _, part := range [...]string{resource, h.UserID, h.Email, h.Reason} {
		text = strconv.AppendInt(text, int64(len(part)), 10)
		text = append(append(text, ':'), part...)
	}
	return string(text)
}

// storedGrant is a grant's text, taken apart.
type storedGrant struct {
	fence                 int64
	since                 time.Time
	id, tokenHash         string
	resource              string
	userID, email, reason string
}

func readGrant(text string) (g storedGrant, ok bool) {
	if len(text) < grantRest {
		return g, false
	}
	fence, err := strconv.ParseInt(text[:grantSince], 10, 64)
	since, sinceErr := strconv.ParseInt(text[grantSince:grantID], 10, 64)
	if err != nil || sinceErr != nil {
		return g, false
	}
	g.fence, g.since = fence, time.UnixMilli(since).UTC()
	g.id, g.tokenHash = text[grantID:grantToken], text[grantToken:grantRest]
	text = text[grantRest:]
	for _, part := range [...]*string{&g.resource, &g.userID, &g.email, &g.reason} {
		size, rest, _ := strings.Cut(text, ":")
		n, err := strconv.Atoi(size)
		if err != nil || n < 0 || n > len(rest) {
			return g, false
		}
		*part, text = rest[:n], rest[n:]
	}
	return g, true
}

func (g *storedGrant) holder() models.Holder {
	return models.Holder{UserID: g.userID, Email: g.email, Reason: g.reason, Since: g.since}
}

// The codes of a lock script's reply.
const (
	lockRefused    = 0 // not acquired, not held, or free
	lockDone       = 1
	lockRepeated   = 2 // acquire: this token had the grant already
	lockGivenBack  = 2 // extend: there is a waiter
	lockOtherFence = 2 // force: another grant is there
	lockTooLate    = 3 // acquire: executed after its sender had given up
)

// lockReply is what a script about one lock answers; the lock's fields are empty
// when it is free. Beat and list answer otherwise.
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
	extra     string    // acquire: arrival; release and force: who has it next; extend: the first fence reserved
	now       int64     // the server's, in milliseconds
	heard     time.Time // by this instance's wall clock
}

func readLockReply(msg rueidis.RedisMessage) (lockReply, error) {
	if msg.IsInt64() { // the shortcut of release
		code, _ := msg.AsInt64()
		return lockReply{code: code}, nil
	}
	if msg.IsString() { // the shortcut of acquire: the fence, which is the server's time, and the shard as it was
		return readShortcut(msg)
	}
	fields, err := msg.ToArray()
	if err != nil || len(fields) != 8 {
		return lockReply{}, fmt.Errorf("read lock reply of %d fields: %w: %w", len(fields), models.ErrUnavailable, err)
	}
	text := func(i int) string { s, _ := fields[i].ToString(); return s }
	number := func(i int) int64 { n, _ := fields[i].AsInt64(); return n }
	r := lockReply{
		code: number(0), remaining: time.Duration(number(2)) * time.Millisecond, waiting: int(number(3)),
		epoch: text(4), extra: text(5), note: text(6), now: number(7),
	}
	if grant := text(1); grant != "" {
		g, ok := readGrant(grant)
		if !ok {
			return lockReply{}, fmt.Errorf("read a grant of %d characters: %w", len(grant), models.ErrUnavailable)
		}
		r.tokenHash, r.grant, r.fence, r.since, r.holder = g.tokenHash, g.id, g.fence, g.since, g.holder()
	}
	return r, nil
}

func readShortcut(msg rueidis.RedisMessage) (lockReply, error) {
	const digits = grantSince
	text, _ := msg.ToString()
	if len(text) < 2*digits {
		return lockReply{}, fmt.Errorf("read lock reply of %d characters: %w", len(text), models.ErrUnavailable)
	}
	micros, err := strconv.ParseInt(text[:digits], 10, 64)
	if err != nil {
		return lockReply{}, fmt.Errorf("read lock reply: %w: %w", models.ErrUnavailable, err)
	}
	return lockReply{code: lockDone, fence: micros, since: time.UnixMilli(micros / 1000).UTC(), epoch: text[2*digits:], now: micros / 1000}, nil
}

func (r lockReply) heldBy(claim Claim) bool {
	return r.code == lockDone && r.grant == claim.Grant &&
		subtle.ConstantTimeCompare([]byte(r.tokenHash), []byte(hashLockToken(claim.Token))) == 1
}

func (r lockReply) status(resource string) models.LockStatus {
	s := models.LockStatus{Resource: resource, Held: r.grant != "", Waiting: r.waiting}
	if s.Held {
		s.Holder, s.Grant, s.Fence, s.TTL = r.holder, r.grant, &r.fence, r.remaining
		s.ExpiresAt = r.heard.Add(r.remaining).UTC()
	}
	return s
}

// lock is the reply as a grant. sent is the instant before the request left.
func (r lockReply) lock(claim Claim, sent time.Time) Lock {
	claim.Grant = r.grant // a repeated token has its first grant
	return Lock{
		Claim: claim, Holder: r.holder, Fence: &r.fence, TTL: r.remaining, ExpiresAt: r.heard.Add(r.remaining).UTC(),
		Note: r.note, Repeated: r.code == lockRepeated,
		began: sent.Add(r.since.Sub(time.UnixMilli(r.now))), ends: sent.Add(r.remaining - drift(r.remaining)),
	}
}

// drift is how much earlier than the server a lease ends here: 0.2 % for clocks
// that run at different speeds, and 2 ms for their grain.
func drift(ttl time.Duration) time.Duration { return ttl/500 + 2*time.Millisecond }
