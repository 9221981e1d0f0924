package bench

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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

// What Redis needs for a decision that is alone, beside the least script of the same algorithm. It
// is the median of what the server says of its scripts, the contenders in turns.
func TestRedisTimeOfDecision(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := newLimiter(t, at(server))
	bare, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr}, DisableCache: true})
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
	log := models.Policy{Name: "log", Limit: 300, Window: time.Minute}
	gcra := models.Policy{Name: "gcra", Limit: models.MaxLimit, Window: time.Minute}
	contenders := []struct {
		name string
		work func(i int, key string) error
	}{
		{"sliding log", func(_ int, key string) error { return take(l, log, key) }},
		{"bare sliding log", script(bareScript, "log", "300", "60000000")},
		{"GCRA", func(_ int, key string) error { return take(l, gcra, key) }},
		{"bare GCRA", script(bareBucket, "gcra", "1000000", "60000000", "100000")},
	}
	took, n := map[string][]float64{}, 0
	for range rounds {
		for _, c := range contenders {
			n++
			before, calls := scriptTime(server), scriptCalls(server)
			for i := range 1000 {
				if err := c.work(1000*n+i, fmt.Sprint("user:", i%50)); err != nil {
					t.Fatal(err)
				}
			}
			micros := float64((scriptTime(server) - before).Microseconds())
			took[c.name] = append(took[c.name], micros/float64(scriptCalls(server)-calls))
		}
	}
	median := func(name string) float64 {
		slices.Sort(took[name])
		return took[name][len(took[name])/2]
	}
	for _, name := range []string{"sliding log", "GCRA"} {
		ours, least := median(name), median("bare "+name)
		tell("Redis time of a decision alone: "+name+" / bare script", fmt.Sprintf("%.2f x (%.1f / %.1f us)", ours/least, ours, least), "<= 1.30 x", ours <= 1.3*least)
	}
}

// What Redis needs for an edit (lock, PUT, unlock) and for a limited request, of a user who makes
// one after the other.
func TestRedisTimeOfRequests(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-C", "..", "-o", filepath.Join(bin, "gatehouse"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
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
