package ratelimit

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// ahead rewrites a key as if all of it had been counted while the server's clock
// was that many microseconds ahead.
const ahead = `
local by = tonumber(ARGV[1])
for _, key in ipairs(redis.call('KEYS', '*rate:*')) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'zset' then
    local all = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #all, 2 do redis.call('ZADD', key, string.format('%.0f', all[i + 1] + by), all[i]) end
  elseif kind == 'hash' then
    redis.call('HINCRBY', key, 'now', by)
  else
    local level, last, rest = string.match(redis.call('GET', key), '^(%d+) (%d+)(.*)$')
    redis.call('SET', key, string.format('%s %.0f%s', level, last + by, rest), 'KEEPTTL')
  end
  redis.call('PEXPIREAT', key, redis.call('PEXPIRETIME', key) + math.ceil(by / 1000))
end`

func TestClockPutBack(t *testing.T) {
	t.Parallel()
	// When the server's clock is put back, time stands still for a key until the clock is where it
	// was. In a log that is as much earlier as an admission may be ahead of the clock. What was
	// counted goes on counting, and no more passes.
	t.Run("what was counted goes on counting", func(t *testing.T) {
		t.Parallel()
		const limit, before = 10, 4
		server := servicestest.StartRedis(t)
		l, other := limiterAt(t, server.Addr), limiterAt(t, server.Addr)
		beside := models.Policy{Name: "beside", Limit: 1000, Window: time.Minute}
		for _, by := range []time.Duration{time.Millisecond, 2 * time.Millisecond, 100 * time.Millisecond, 5 * time.Second, time.Hour} {
			for _, policy := range []models.Policy{
				{Name: "log", Limit: limit, Window: 10 * time.Minute},
				{Name: "gcra", Limit: 10 * limit, Window: 10 * time.Hour, Algorithm: models.AlgorithmGCRA},
				{Name: "leased", Limit: limit, Window: 10 * time.Minute, Block: 1},
			} {
				for _, policies := range [][]models.Policy{{policy}, {policy, beside}} {
					name := fmt.Sprintf("%s, one of %d, %v back", policy.Name, len(policies), by)
					server.Do("FLUSHALL")
					var hits []models.Hit
					for _, p := range policies {
						hits = append(hits, models.Hit{Policy: p, Key: strings.ReplaceAll(name, " ", "-")})
					}
					newest := int64(0)
					for range before {
						d := take(t, l, hits...)[0]
						if d.Degraded {
							t.Fatalf("%s: Redis did not count: %+v", name, d)
						}
						newest = d.Admission.At + by.Microseconds() - ruleOf(&policy).ahead
					}
					server.Do("EVAL", ahead, "0", strconv.FormatInt(by.Microseconds(), 10))
					for i := range limit - before {
						d := take(t, other, hits...)[0]
						if !d.Allowed || d.Degraded || policy.Block == 0 && d.Admission.At < newest {
							t.Fatalf("%s: hit %d: %+v, want it to pass at %d or later", name, i+1, d, newest)
						}
						newest = max(newest, d.Admission.At-ruleOf(&policy).ahead)
					}
					if d := take(t, other, hits...)[0]; d.Allowed || d.RetryAfter <= 0 {
						t.Errorf("%s: over the limit: %+v", name, d)
					}
				}
			}
		}
	})

	// Time stands still for a key, however long its block in Redis lasts: that was counted by
	// another clock, or for another window.
	t.Run("time stands still, however long a key lasts", func(t *testing.T) {
		for name, window := range map[string]time.Duration{"same window": time.Minute, "longer window": time.Hour} {
			t.Run(name, func(t *testing.T) {
				l, server := limiterWithClock(t)
				began := time.Now()
				decide := func(window time.Duration) result {
					t.Helper()
					req := newRequest(&models.Hit{Policy: models.Policy{Name: "p", Limit: 10, Window: window}, Key: "k"})
					got, err := l.run(t.Context(), "k", []request{req}, rand.Int64N(maxCallID)+1)
					if err != nil {
						t.Fatal(err)
					}
					return got[0]
				}
				server.SetTime(began)
				first := decide(time.Minute)
				server.FastForward(time.Second) // what remains of the key's life; the clock is another matter
				server.SetTime(began.Add(-5 * time.Second))
				second := decide(window)
				if second.at != first.at-maxAhead || !second.passes || second.remaining != 8 {
					t.Errorf("first %+v, then %+v", first, second)
				}
			})
		}
	})

	// However often the clock is put back, the time of the pure functions does not go back from one
	// admission to the next, or in a log by no more than one may be ahead of the clock. No window of
	// real time holds more than the limit.
	t.Run("the pure functions go back no further than one may be ahead", func(t *testing.T) {
		t.Parallel()
		rnd := rand.New(rand.NewPCG(10, 11))
		stoodStill := 0 // admissions while the clock was behind the key
		for trace := range 3000 {
			r := rule{limit: 1 + rnd.Int64N(40), window: 1 + rnd.Int64N(50)}
			switch trace % 3 {
			case 0:
				r.burst = max(1, r.limit/10)
			case 1:
				r.ahead = rnd.Int64N(r.window)
			}
			var l slidingLog
			var b bucket
			var all []counted // in real time
			now, off, last := int64(0), int64(1_000_000), int64(0)
			for i := range int64(100) {
				now += rnd.Int64N(6)
				if rnd.IntN(10) == 0 {
					off -= rnd.Int64N(3 * r.window)
				}
				cost := 1 + rnd.Int64N(min(2, r.limit))
				v := l.look(now+off, r, cost)
				if r.burst > 0 {
					v = b.look(now+off, r, cost)
				}
				if !v.passes {
					continue
				}
				if v.at < max(last-r.ahead, now+off) {
					t.Fatalf("trace %d, step %d: admitted at %d by a clock at %d, after %d", trace, i, v.at, now+off, last)
				}
				if v.at > now+off {
					stoodStill++
				}
				last = max(last, v.at)
				if r.burst > 0 {
					b.add(v.at, r, cost)
				} else {
					l.add(v.at, i, cost)
				}
				all = append(all, counted{now, cost})
				if sum := within(all, now, r.window); sum > r.limit {
					t.Fatalf("trace %d, step %d: %d in a window of %+v", trace, i, sum, r)
				}
			}
		}
		if stoodStill < 1000 {
			t.Errorf("only %d admissions while the clock was put back", stoodStill)
		}
	})
}
