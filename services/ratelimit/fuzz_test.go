package ratelimit

import (
	"slices"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"gatehouse/models"
)

// The scripts and the pure functions decide alike on whatever steps: hits alone and
// together, refunds, accounting after an outage, a clock that is put back. A key
// that Redis let expire had nothing left.
func FuzzRateLimitScripts(f *testing.F) {
	for _, steps := range []string{
		"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10",
		"\xff\x00\xff\x00\x80\x01\x01\x01\x00\x00\x00\x00\xfa\x03\xfa\x03",
		"1AX0 000\v%00\x00000", // a bucket: taken, looked at, refunded, the clock put back
		"\x0a\x06\x03\x10\x0c\x06\x03\x10\x0a\x00\x07\x00\x0a\x07\x20\x00\x28\x08\x08\x00", // accounted, twice
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
				z.accountLog(number)
			case 7:
				z.accountBucket(number)
			default:
				z.take(which/8%7+1, number)
			}
		}
	})
}

// scriptFuzz is one server, and what the pure functions say is on it.
type scriptFuzz struct {
	l        *Limiter
	server   *miniredis.Miniredis
	policies []models.Policy

	t        *testing.T
	clock    time.Time
	states   []keyState
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
	z.l = limiterAt(f, z.server.Addr(), true)
	z.l.table.clock = func() time.Time { return z.clock }
	return z
}

func (z *scriptFuzz) begin(t *testing.T) {
	z.server.FlushAll()
	z.t, z.states, z.admitted, z.calls = t, make([]keyState, len(z.policies)), nil, 0
	z.clock = time.UnixMicro(1_700_000_000_000_000)
	z.l.table.started = z.clock
	z.l.admitted = newAdmittedBook(0, z.l.table.now)
	z.server.SetTime(z.clock)
}

// tick moves the clock, by which keys expire. What expires had nothing left.
func (z *scriptFuzz) tick(by time.Duration) {
	z.t.Helper()
	z.clock = z.clock.Add(by)
	z.server.SetTime(z.clock)
	for i := range z.policies {
		a, s := z.ask(i, 1), &z.states[i]
		key := z.l.redisKey("k", &a)
		if left := z.server.TTL(key) - by; left > 0 {
			z.server.SetTTL(key, left)
			continue
		}
		z.server.Del(key)
		s.log.forget(z.now(), a.rule.window)
		if b := s.bucket.leaked(z.now(), a.rule); s.log.used > 0 || b.level > 0 {
			z.t.Fatalf("%s expired with %d used, level %d", a.name, s.log.used, b.level)
		}
		*s = keyState{}
	}
}

func (z *scriptFuzz) now() int64 { return z.clock.UnixMicro() }

func (z *scriptFuzz) ask(policy int, cost int64) ask {
	return newAsk(&models.Hit{Policy: z.policies[policy], Key: "k", Cost: cost})
}

func (z *scriptFuzz) look(policy int, now, cost int64) verdict {
	a, s := z.ask(policy, 1), &z.states[policy]
	if a.rule.burst > 0 {
		return s.bucket.look(now, a.rule, cost)
	}
	return s.log.look(now, a.rule, cost)
}

// take asks the policies of a mask together, three bits of costs for each.
func (z *scriptFuzz) take(mask byte, costs int64) {
	z.t.Helper()
	var asks []ask
	var policies []int
	for i := range z.policies {
		if mask&(1<<i) != 0 {
			cost := costs >> (3 * i) & 7
			if cost == 0 {
				cost = -1 // only looks
			}
			asks, policies = append(asks, z.ask(i, cost)), append(policies, i)
		}
	}
	z.calls++
	got, err := z.l.run(z.t.Context(), "k", asks, z.calls)
	if err != nil {
		z.t.Fatal(err)
	}
	want := make([]verdict, len(asks))
	for j, a := range asks {
		want[j] = z.look(policies[j], z.now(), a.cost)
	}
	if allPass(asks, want) {
		for j, a := range asks {
			if !want[j].passes || a.cost == 0 {
				continue
			}
			s, at := &z.states[policies[j]], want[j].at
			if a.rule.burst > 0 {
				s.bucket.add(at, a.rule, a.cost)
			} else {
				s.log.add(at, z.calls, a.cost)
			}
			want[j] = z.look(policies[j], at, 0)
			z.admitted = append(z.admitted, fuzzedAdmission{policies[j], a.admission(z.calls, at, 0, "k")})
		}
	}
	for j, a := range asks {
		if got[j] != want[j] {
			z.t.Fatalf("call %d, %s cost %d: the script says %+v, the function %+v", z.calls, a.name, a.cost, got[j], want[j])
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
	a, s := z.ask(e.policy, e.Cost), &z.states[e.policy]
	if err := z.l.refund(z.t.Context(), &a, e.Admission); err != nil {
		z.t.Fatal(err)
	}
	if a.rule.burst > 0 {
		s.bucket.remove(z.now(), a.rule, e.Cost, e.At)
	} else {
		s.log.remove(e.ID)
	}
}

// accountLog tells Redis of up to 4 admissions of the last window, some of which it
// has already.
func (z *scriptFuzz) accountLog(number int64) {
	z.t.Helper()
	const policy = 0
	a, s := z.ask(policy, 1), &z.states[policy]
	owed := z.owed(&a)
	for i := range number%4 + 1 {
		z.calls++
		e := admission{at: z.l.table.now() - number/4%62*16_000, id: z.calls, cost: number/256%3 + 1}
		if n := slices.IndexFunc(z.admitted, func(e fuzzedAdmission) bool { return e.policy == policy }); n >= 0 && i == 0 && number&128 != 0 {
			e.id, e.cost = z.admitted[n].ID, z.admitted[n].Cost // its reply got lost
		}
		owed.log.add(e.at, e.id, e.cost)
		e.at += z.now() - z.l.table.now()
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
	z.report(&a)
}

// accountBucket tells Redis of up to twice the burst.
func (z *scriptFuzz) accountBucket(number int64) {
	z.t.Helper()
	const policy = 1
	a, s := z.ask(policy, 1), &z.states[policy]
	owed := z.owed(&a)
	owed.bucket = bucket{level: number % (2 * a.rule.burst * a.rule.window), last: z.l.table.now()}
	if owed.bucket.level > 0 {
		s.bucket = s.bucket.leaked(z.now(), a.rule)
		s.bucket.level += owed.bucket.level
	}
	z.report(&a)
}

// owed is what is remembered of a key, of which Redis is to be told.
func (z *scriptFuzz) owed(a *ask) *admittedState {
	s := z.l.admitted.state(placedKey{"k", a.name}, a, z.l.table.now())
	s.behind = true
	return s
}

func (z *scriptFuzz) report(a *ask) {
	z.t.Helper()
	if err := z.l.report(z.t.Context(), placedKey{"k", a.name}); err != nil {
		z.t.Fatal(err)
	}
}
