package proof

import (
	"context"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

const editors = 16

// TestProofNoLostUpdate: several instances on one database, editors who count up
// numbers at any of them under locks, and every fault at random; in the long proof two of
// their clocks are 5 s off, one each way. What was acknowledged is stored, and nothing else
// but what was never answered.
func TestProofNoLostUpdate(t *testing.T) {
	t.Run("4 instances on PostgreSQL", func(t *testing.T) {
		proveNoLostUpdate(t, []int{5, -5, 0, 0}, servicestest.StartPostgres(t), 400, 8000)
	})
	t.Run("2 instances on SQLite", func(t *testing.T) {
		proveNoLostUpdate(t, []int{5, -5}, filepath.Join(t.TempDir(), "proof.db"), 100, 2000)
	})
}

// proveNoLostUpdate runs an instance for each clock, which is so many seconds off in the long
// proof.
func proveNoLostUpdate(t *testing.T, clocks []int, database string, short, long int64) {
	wanted, within := short, 3*time.Minute
	if servicestest.LongProof() {
		wanted, within = long, 25*time.Minute
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	f := &field{t: t, random: rand.New(rand.NewPCG(seed, 0)), struck: map[string]int{}}
	f.redis = servicestest.StartRedis(t, "--appendonly", "yes", "--appendfsync", "no", "--dir", t.TempDir())
	for _, offset := range clocks {
		f.instances = append(f.instances, start(t, database, f.redis, offset))
	}
	client := &http.Client{Timeout: 4 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: editors}}
	defer client.CloseIdleConnections()
	chief := &editor{instances: f.instances, http: client, random: rand.New(rand.NewPCG(seed, 1))}
	chief.token = signIn(t, chief)
	counters := makeCounters(t, chief, 12)
	f.counters = counters
	f.admin = &editor{instances: f.instances, http: client, random: rand.New(rand.NewPCG(seed, 1000))}
	f.admin.token = signInAs(t, f.admin, "admin@example.com")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var signedOut atomic.Int64
	for i := range editors {
		e := &editor{
			instances: f.instances, counters: counters, http: client, signedOut: &signedOut,
			random: rand.New(rand.NewPCG(seed, uint64(2+i))),
		}
		e.token = chief.token
		if i < 4 { // hashing passwords would take most of the time
			e.token = signIn(t, &editor{instances: f.instances, http: client, random: e.random})
		}
		wg.Go(func() { e.edit(ctx) })
	}
	deadline := time.Now().Add(within)
	for {
		acknowledged, _ := sum(counters)
		if acknowledged >= wanted && f.lasted > 0 && f.forced > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %d of %d writes acknowledged within %v", acknowledged, wanted, within)
		}
		f.strike()
	}
	stop()
	wg.Wait()
	if n := signedOut.Load(); n > 0 {
		t.Errorf("editors were signed out %d times", n)
	}
	var stored int64
	for _, c := range counters {
		n := readCounter(t, chief, c)
		stored += n
		least, most := c.acknowledged.Load(), c.acknowledged.Load()+c.unanswered.Load()
		if n < least || n > most {
			t.Errorf("counter %s is %d; %d acknowledged, %d unanswered", c.id, n, least, most-least)
		}
	}
	acknowledged, unanswered := sum(counters)
	t.Logf("acknowledged %d <= stored %d <= acknowledged + unanswered %d; faults: %v, %d of them past every lease; %d locks forced",
		acknowledged, stored, acknowledged+unanswered, f.struck, f.lasted, f.forced)
	if f.lasted == 0 || f.forced == 0 {
		t.Error("no fault lasted past a lease, or no lock was forced: less is proven than said")
	}
}

func sum(counters []*counter) (acknowledged, unanswered int64) {
	for _, c := range counters {
		acknowledged += c.acknowledged.Load()
		unanswered += c.unanswered.Load()
	}
	return acknowledged, unanswered
}

func signIn(t *testing.T, e *editor) string {
	t.Helper()
	return signInAs(t, e, "alice@example.com")
}

func signInAs(t *testing.T, e *editor, email string) string {
	t.Helper()
	var got struct {
		Token string `json:"token"`
	}
	servicestest.Eventually(t, func() bool {
		return e.send(t.Context(), "POST", "/auth/login", map[string]string{"email": email, "password": "gatehouse-demo"}, &got) == http.StatusOK
	}, "the editor cannot sign in")
	return got.Token
}

func makeCounters(t *testing.T, e *editor, n int) []*counter {
	t.Helper()
	var all []*counter
	for range n {
		var made process
		servicestest.Eventually(t, func() bool {
			return e.send(t.Context(), "POST", "/processes", map[string]string{"title": "counter", "description": "0"}, &made) == http.StatusCreated
		}, "no counter can be created")
		all = append(all, &counter{id: made.ID})
	}
	return all
}

func readCounter(t *testing.T, e *editor, c *counter) int64 {
	t.Helper()
	var read process
	servicestest.Eventually(t, func() bool {
		return e.send(t.Context(), "GET", "/processes/"+c.id, nil, &read) == http.StatusOK
	}, "the counter cannot be read")
	n, err := strconv.ParseInt(read.Description, 10, 64)
	if err != nil {
		t.Fatalf("counter %s: %v", c.id, err)
	}
	return n
}

// field is where faults strike.
type field struct {
	t         *testing.T
	redis     *servicestest.RedisServer
	instances []*instance
	random    *rand.Rand
	struck    map[string]int
	lasted    int // faults that lasted past the leases
	admin     *editor
	counters  []*counter
	forced    int
}

// strike is one fault, for up to half a second, or sometimes for longer than every
// lease, and a while without.
func (f *field) strike() {
	one := f.instances[f.random.IntN(len(f.instances))]
	all := func(do func(*servicestest.Proxy)) {
		for _, i := range f.instances {
			do(i.redis)
		}
	}
	nothing := func() {}
	faults := []struct {
		name         string
		strike, heal func()
	}{
		{"Redis frozen", f.redis.Freeze, f.redis.Thaw},
		{"Redis killed", f.redis.Kill, f.redis.Start},
		{"Redis emptied", func() { f.redis.Do("FLUSHALL") }, nothing},
		{"scripts flushed", func() { f.redis.Do("SCRIPT", "FLUSH") }, nothing},
		{"connections reset", func() { all((*servicestest.Proxy).Reset) }, nothing},
		{"replies lost", func() { all(func(p *servicestest.Proxy) { p.LoseReplies(1 + f.random.IntN(4)) }) },
			func() { all(func(p *servicestest.Proxy) { p.LoseReplies(0) }) }},
		{"latency", func() { all(func(p *servicestest.Proxy) { p.SetLatency(100 * time.Millisecond) }) },
			func() { all(func(p *servicestest.Proxy) { p.SetLatency(0) }) }},
		{"one cut off", one.redis.Cut, one.redis.Restore},
		{"one cut off, half open", one.redis.Stall, one.redis.Resume},
		{"locks forced", f.force, nothing},
		{"one stopped", one.Freeze, one.Thaw},
	}
	fault := faults[f.random.IntN(len(faults))]
	for f.lasted > 0 && f.forced == 0 && fault.name != "locks forced" { // what a short run must not miss
		fault = faults[f.random.IntN(len(faults))]
	}
	f.struck[fault.name]++
	fault.strike()
	if f.random.IntN(5) == 0 || f.lasted == 0 {
		f.lasted++
		time.Sleep(2500 * time.Millisecond) // leases are for 1 or 2 s
	} else {
		f.wait(500)
	}
	fault.heal()
	f.wait(400)
}

// force is an administrator who ends whatever locks there are.
func (f *field) force() {
	for range 3 {
		for _, c := range f.counters {
			if f.admin.send(context.Background(), "DELETE", "/locks/process:"+c.id+"?reason=proof", nil, nil) == http.StatusNoContent {
				f.forced++
			}
		}
	}
}

func (f *field) wait(most int) {
	time.Sleep(time.Duration(f.random.IntN(most)) * time.Millisecond)
}
