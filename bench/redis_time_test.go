package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// bareBucket is the least GCRA can be: it trusts that time never goes back and that Redis loses
// nothing, counts in fractions, and cannot take back.
const bareBucket = `
local clock = redis.call('TIME')
local now, window, limit, burst = clock[1] * 1000000 + clock[2], tonumber(ARGV[2]), tonumber(ARGV[1]), tonumber(ARGV[3])
local interval = window / limit
local full = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0)) + interval
local wait = full - burst * interval - now
if wait > 0 then return {0, 0, wait, full - now} end
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
return {1, math.floor(-wait / interval), 0, full - now}`

// What a decision that is alone needs of the processors, here and in Redis, beside the least script
// of the same algorithm that is run directly. Of many short turns in random order it takes the
// median: what other programs add to one turn, they add to its neighbours, too.
func TestProcessorTimeOfDecision(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := newLimiter(t, at(server))
	bare, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr}, DisableCache: true, AlwaysPipelining: true})
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	script := func(text, name string, args ...string) func(i int, key string) error {
		lua := rueidis.NewLuaScript(text)
		return func(i int, key string) error {
			return lua.Exec(context.Background(), bare, []string{name + ":" + key}, append(args, strconv.Itoa(i))).Error()
		}
	}
	log := models.Policy{Name: "log", Limit: models.MaxSlidingLogLimit, Window: time.Minute}
	gcra := models.Policy{Name: "gcra", Limit: models.MaxLimit, Window: time.Minute}
	contenders := []struct {
		name string
		work func(i int, key string) error
	}{
		{"sliding log", func(_ int, key string) error { return take(l, log, key) }},
		{"bare sliding log", script(bareScript, "log", "1000", "60000000")},
		{"GCRA", func(_ int, key string) error { return take(l, gcra, key) }},
		{"bare GCRA", script(bareBucket, "gcra", "1000000", "60000000", "100000")},
	}
	type cost struct{ app, redis, script []float64 } // microseconds a decision
	took, n := map[string]*cost{}, 0
	for round := range decisionTurns + 1 {
		for _, which := range rand.Perm(len(contenders)) {
			c := contenders[which]
			before := decisionCosts(t, server)
			for range decisionsATurn {
				n++
				if err := c.work(n, fmt.Sprint("user:", n%100)); err != nil {
					t.Fatal(err)
				}
			}
			after := decisionCosts(t, server)
			if took[c.name] == nil {
				took[c.name] = &cost{}
			}
			if each := took[c.name]; round > 0 { // the first loads the scripts
				each.app = append(each.app, (after[0]-before[0])/decisionsATurn)
				each.redis = append(each.redis, (after[1]-before[1])/decisionsATurn)
				each.script = append(each.script, (after[2]-before[2])/decisionsATurn)
			}
		}
	}
	for _, name := range []string{"sliding log", "GCRA"} {
		ours, least := took[name], took["bare "+name]
		row := func(what string, of func(*cost) []float64, goal string) {
			a, b := middle(of(ours)), middle(of(least))
			tell(what+": "+name+" / bare script", fmt.Sprintf("%.2f x (%.1f / %.1f us)", a/b, a, b), goal, a <= 1.3*b)
		}
		row("a decision alone, in Redis' script", func(c *cost) []float64 { return c.script }, "<= 1.30 x")
		row("  all of Redis", func(c *cost) []float64 { return c.redis }, "")
		row("  this side", func(c *cost) []float64 { return c.app }, "")
		row("  both sides", func(c *cost) []float64 {
			sum := make([]float64, len(c.app))
			for i := range sum {
				sum[i] = c.app[i] + c.redis[i]
			}
			return sum
		}, "<= 1.30 x")
	}
}

const decisionTurns, decisionsATurn = 40, 100

// decisionCosts is what this process, the server, and its scripts have used so far, in
// microseconds.
func decisionCosts(t *testing.T, server *servicestest.RedisServer) (costs [3]float64) {
	t.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	costs[0] = float64((used.Utime.Sec+used.Stime.Sec)*1e6 + used.Utime.Usec + used.Stime.Usec)
	for _, found := range info(server, "cpu", `used_cpu_(?:user|sys):([0-9.]+)`) {
		seconds, err := strconv.ParseFloat(found, 64)
		if err != nil {
			t.Fatal(err)
		}
		costs[1] += seconds * 1e6
	}
	costs[2] = float64(scriptTime(server).Microseconds())
	return costs
}

func middle(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// What Redis needs for an edit (lock, PUT, unlock) and for a limited request, of a user who makes
// one after the other.
func TestRedisTimeOfRequests(t *testing.T) {
	bin := buildSubjects(t)
	s := startGatehouse(t, bin)
	c := s.client(t, 0)
	for _, row := range []struct {
		what string
		work func() error
	}{
		{"an edit (lock, PUT, unlock)", c.edit},
		{"a limited request", c.readSession},
	} {
		const times = 500
		before, calls := scriptTime(s.redis), scriptCalls(s.redis)
		for range times {
			if err := row.work(); err != nil {
				t.Fatal(err)
			}
		}
		micros := (scriptTime(s.redis) - before).Microseconds()
		tell("Redis time of scripts for "+row.what, fmt.Sprintf("%.1f us in %.2f calls", float64(micros)/times, float64(scriptCalls(s.redis)-calls)/times), "", true)
	}
}
