package ratelimit

import (
	"slices"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
)

// The scripts and the pure functions decide alike on steps of all kinds. Those are hits alone and
// together, refunds, flushes after an outage, a clock that is put back. A key that Redis let expire
// had nothing left.
func FuzzScripts(f *testing.F) {
	for _, steps := range []string{
		"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10",
		"\xff\x00\xff\x00\x80\x01\x01\x01\x00\x00\x00\x00\xfa\x03\xfa\x03",
		"1AX0 000\v%00\x00000",          // a bucket: taken, looked at, refunded, the clock put back
		"08000&7007\x00\x00\x030000000", // an empty bucket is flushed, and nothing is written
		"0810000000000&\xb170%000000",   // a lost reply is flushed, and refunded
		"0AX0 000\v700\x00000",          // a bucket that is flushed as it was seen, a microsecond too full
		"\x0a\x06\x03\x10\x0c\x06\x03\x10\x0a\x00\x07\x00\x0a\x07\x20\x00\x28\x08\x08\x00", // flushed, twice
	} {
		f.Add([]byte(steps))
	}
	z := newScriptFuzz(f)
	f.Fuzz(func(t *testing.T, steps []byte) {
		z.begin(t)
		for i := 0; i+3 < min(len(steps), 200); i += 4 {
			z.tick(time.Duration(steps[i])*3*time.Millisecond - 30*time.Millisecond)
			number := int64(steps[i+2]) | int64(steps[i+3])<<8
			switch which := steps[i+1]; which % 8 {
			case 5:
				z.refund(number)
			case 6:
				z.flushLog(number)
			case 7:
				z.flushBucket(number)
			default:
				z.take(which/8%7+1, number)
			}
		}
	})
}

// fuzzStart is when each input begins, in microseconds.
const fuzzStart = 1_700_000_000_000_000

// scriptFuzz is one server, and what the pure functions say is on it.
type scriptFuzz struct {
	l        *Limiter
	server   *miniredis.Miniredis
	policies []models.Policy

	t        *testing.T
	clock    int64 // microseconds
	states   []localState
	admitted []fuzzedAdmission
	calls    int64
}

type fuzzedAdmission struct {
	policy int
	models.Admission
}

func newScriptFuzz(f *testing.F) *scriptFuzz {
	f.Helper()
	z := &scriptFuzz{policies: []models.Policy{
		{Name: "log", Limit: 7, Window: time.Second},
		{Name: "gcra", Limit: 40, Window: time.Second, Algorithm: models.AlgorithmGCRA},
		{Name: "shadow", Limit: 3, Window: 2 * time.Second, Shadow: true},
	}}
	z.server = miniredis.RunT(f)
	z.clock = fuzzStart
	rdb := redistest.At(f, z.server.Addr(), redis.Options{Embedded: true})
	z.l = build(rdb, Options{Logger: redistest.Quiet(), Clock: func() time.Time { return time.UnixMicro(z.now()) }})
	return z
}

func (z *scriptFuzz) begin(t *testing.T) {
	z.l.outbox = newOutbox(0, z.l.local.now)
	z.server.FlushAll()
	z.t, z.states, z.admitted, z.calls = t, make([]localState, len(z.policies)), nil, 0
	z.clock = fuzzStart
	z.server.SetTime(time.UnixMicro(fuzzStart))
}

// tick moves the clock, by which keys expire. What expires had nothing left.
func (z *scriptFuzz) tick(by time.Duration) {
	z.t.Helper()
	z.clock += by.Microseconds()
	z.server.SetTime(time.UnixMicro(z.clock))
	for i := range z.policies {
		req, s := z.request(i, 1), &z.states[i]
		key := z.l.redisKey("k", &req)
		if left := z.server.TTL(key) - by; left > 0 {
			z.server.SetTTL(key, left)
			continue
		}
		z.server.Del(key)
		s.log.forget(z.now(), req.rule)
		if b := s.bucket.leaked(z.now(), req.rule); s.log.used > 0 || b.level > 0 {
			z.t.Fatalf("%s expired with %d used, level %d", req.name, s.log.used, b.level)
		}
		*s = localState{}
		z.l.outbox.drop(taggedKey{"k", req.name}) // or it would be put back when the clock is
	}
}

func (z *scriptFuzz) now() int64 { return z.clock }

func (z *scriptFuzz) request(policy int, cost int64) request {
	return newRequest(&models.Hit{Policy: z.policies[policy], Key: "k", Cost: cost})
}

func (z *scriptFuzz) look(policy int, now, cost int64) result {
	req, s := z.request(policy, 1), &z.states[policy]
	if req.rule.burst > 0 {
		return s.bucket.look(now, req.rule, cost)
	}
	return s.log.look(now, req.rule, cost)
}

// take asks the policies of a mask together, three bits of costs for each.
func (z *scriptFuzz) take(mask byte, costs int64) {
	z.t.Helper()
	var requests []request
	var policies []int
	for i := range z.policies {
		if mask&(1<<i) != 0 {
			cost := costs >> (3 * i) & 7
			if cost == 0 {
				cost = -1 // only looks
			}
			requests, policies = append(requests, z.request(i, cost)), append(policies, i)
		}
	}
	z.calls++
	got, err := z.l.run(z.t.Context(), "k", requests, z.calls)
	if err != nil {
		z.t.Fatal(err)
	}
	want := make([]result, len(requests))
	for j, req := range requests {
		want[j] = z.look(policies[j], z.now(), req.cost)
	}
	if allPass(requests, want) {
		for j, req := range requests {
			if !want[j].passes || req.cost == 0 {
				continue
			}
			s, at := &z.states[policies[j]], want[j].at
			if req.rule.burst > 0 {
				s.bucket.add(at, req.rule, req.cost)
			} else {
				s.log.add(at, z.calls, req.cost)
			}
			want[j] = z.look(policies[j], at, 0)
			z.admitted = append(z.admitted, fuzzedAdmission{policies[j], req.admission(z.calls, at, 0, "k")})
		}
	}
	for j, req := range requests {
		if got[j] != want[j] {
			z.t.Fatalf("call %d, %s cost %d: the script says %+v, the function %+v", z.calls, req.name, req.cost, got[j], want[j])
		}
	}
}

// refund takes back one of the admissions, once.
func (z *scriptFuzz) refund(number int64) {
	z.t.Helper()
	if len(z.admitted) == 0 {
		return
	}
	n := int(number) % len(z.admitted)
	e := z.admitted[n]
	z.admitted = slices.Delete(z.admitted, n, n+1)
	req, s := z.request(e.policy, e.Cost), &z.states[e.policy]
	if err := z.l.refund(z.t.Context(), &req, e.Admission); err != nil {
		z.t.Fatal(err)
	}
	if req.rule.burst > 0 {
		s.bucket.remove(z.now(), req.rule, e.Cost, e.At)
	} else {
		s.log.remove(e.ID)
	}
}

// flushLog publishes up to 4 admissions of the last window, some of which it
// has already.
func (z *scriptFuzz) flushLog(number int64) {
	z.t.Helper()
	const policy = 0
	req, s := z.request(policy, 1), &z.states[policy]
	unpublished := z.unpublished(&req)
	for i := range number%4 + 1 {
		z.calls++
		e := admission{at: z.l.local.now() - number/4%62*16_000, id: z.calls, cost: number/256%3 + 1}
		if n := slices.IndexFunc(z.admitted, func(e fuzzedAdmission) bool { return e.policy == policy }); n >= 0 && i == 0 && number&128 != 0 {
			e.id, e.cost = z.admitted[n].ID, z.admitted[n].Cost // its reply got lost
			unpublished.log.remove(e.id)                        // so the instance did not record it
		}
		unpublished.log.add(e.at, e.id, e.cost)
		e.at += z.now() - z.l.local.now()
		if slices.ContainsFunc(s.log.entries, func(there admission) bool { return there.id == e.id }) {
			continue
		}
		after := slices.IndexFunc(s.log.entries, func(there admission) bool { return there.at > e.at })
		if after < 0 {
			after = len(s.log.entries)
		}
		s.log.entries = slices.Insert(s.log.entries, after, e)
		s.log.used += e.cost
	}
	z.flush(&req)
}

// flushBucket publishes up to twice the burst.
func (z *scriptFuzz) flushBucket(number int64) {
	z.t.Helper()
	const policy = 1
	req, s := z.request(policy, 1), &z.states[policy]
	unpublished := z.unpublished(&req)
	unpublished.bucket = bucket{level: number % (2 * req.rule.burst * req.rule.window), last: z.l.local.now()}
	want := s.bucket.leaked(z.now(), req.rule)
	want.level += unpublished.bucket.level
	z.flush(&req)
	// A decision shows the bucket up to a microsecond too full, and that is published.
	level := unpublished.seen.level
	if over := level - want.level; over < 0 || over >= req.rule.refill() {
		z.t.Fatalf("the script says that the level is %d, the function %d", level, want.level)
	}
	if level > 0 { // else nothing is written
		s.bucket = bucket{level: level, last: want.last}
	}
}

// unpublished is what is remembered of a key, and Redis does not have.
func (z *scriptFuzz) unpublished(req *request) *outboxState {
	s := z.l.outbox.state(taggedKey{"k", req.name}, req, z.l.local.now())
	s.behind = true
	return s
}

func (z *scriptFuzz) flush(req *request) {
	z.t.Helper()
	if err := z.l.flush(z.t.Context(), taggedKey{"k", req.name}); err != nil {
		z.t.Fatal(err)
	}
}
