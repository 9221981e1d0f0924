package services

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// oracleDecisions is how many decisions a history has. GATEHOUSE_PROOF_DECISIONS
// says another number.
func oracleDecisions(t *testing.T) int {
	t.Helper()
	if text := os.Getenv("GATEHOUSE_PROOF_DECISIONS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if servicestest.LongProof() {
		return 10_000_000
	}
	return 100_000
}

// proofCompany is which policies are asked together: any of those alike for one
// key, and the two of the pair, if there is one, always and for two keys.
type proofCompany struct{ alike, pair []models.Policy }

func (c proofCompany) all() []models.Policy { return slices.Concat(c.alike, c.pair) }

// proofPolicies are low enough to be reached on a busy machine.
func proofPolicies(leased bool) proofCompany {
	const closed = models.OnRedisDownClosed
	if leased {
		return proofCompany{alike: []models.Policy{
			{Name: "leased", Limit: 60, Window: time.Second, Lease: 16, OnRedisDown: closed},
			{Name: "large", Limit: 400, Window: 2 * time.Second, Lease: 100, OnRedisDown: closed},
			{Name: "beside", Limit: 40, Window: time.Second, OnRedisDown: closed},
		}}
	}
	return proofCompany{
		alike: []models.Policy{
			{Name: "log", Limit: 20, Window: time.Second, OnRedisDown: closed},
			{Name: "gcra", Limit: 30, Window: time.Second, Algorithm: models.AlgorithmGCRA, OnRedisDown: closed},
			{Name: "slow", Limit: 30, Window: 2 * time.Second, OnRedisDown: closed},
		},
		pair: []models.Policy{
			{Name: "pair-log", Limit: 12, Window: time.Second, OnRedisDown: closed},
			{Name: "pair-gcra", Limit: 20, Window: time.Second, Algorithm: models.AlgorithmGCRA, OnRedisDown: closed},
		},
	}
}

// Four processes, their clocks up to 5 s off, random keys, costs, groups and refunds,
// scripts flushed, connections cut and replies lost: by the server's clock no window
// of any policy ever holds more than the limit, hits decided together count together,
// and while nothing is cut no refusal is wrong.
func TestProofRateLimitOracle(t *testing.T) { proveWindows(t, false) }

// The same with admissions taken in blocks; what another instance has at hand
// may then be refused.
func TestProofRateLimitLeaseOracle(t *testing.T) { proveWindows(t, true) }

func proveWindows(t *testing.T, leased bool) {
	t.Helper()
	decisions := oracleDecisions(t)
	if leased && !servicestest.LongProof() {
		decisions /= 4
	}
	server := servicestest.StartRedis(t)
	folder, started := t.TempDir(), time.Now()
	var proxies []*servicestest.Proxy
	var instances []*servicestest.Process
	var files []string
	for i, skew := range []time.Duration{-5, 5, -1, 0} {
		proxy := servicestest.NewProxy(t, server.Addr)
		me := proofSetup{
			Addr: proxy.Addr, Skew: skew * time.Second, Seed: uint64(i), Decisions: decisions / 4, Leased: leased, File: filepath.Join(folder, fmt.Sprint(i)),
		}
		text, err := json.Marshal(me)
		if err != nil {
			t.Fatal(err)
		}
		proxies, files = append(proxies, proxy), append(files, me.File)
		instances = append(instances, servicestest.RunAgain(t, "TestProofRateLimitInstance", "GATEHOUSE_PROOF_RATE_LIMIT="+string(text)))
	}
	disturb(t, server, proxies, instances)
	for i, p := range instances {
		if len(p.Lines("PASS")) != 1 {
			said := slices.DeleteFunc(p.Lines(""), func(line string) bool { return line == "percent" })
			t.Errorf("instance %d: %q", i, said[:min(len(said), 20)])
		}
	}
	if t.Failed() {
		return
	}
	t.Logf("%d decisions in %v", decisions, time.Since(started).Round(time.Second/10))
	history := readHistory(t, files)
	for i, policy := range proofPolicies(leased).all() {
		found := checkHistory(history, i, policy)
		t.Logf("%s: %+v", policy.Name, found)
		if found.Highest > policy.Limit || found.WronglyRefused > 0 || found.Kept < 200 || !leased && found.Refused < 100 {
			t.Errorf("%s, limit %d: %+v", policy.Name, policy.Limit, found)
		}
	}
}

// disturb flushes the scripts until every instance has ended and, once each is
// half through, cuts connections and loses replies to what was executed. It tells
// how far they are.
func disturb(t *testing.T, server *servicestest.RedisServer, proxies []*servicestest.Proxy, instances []*servicestest.Process) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(21, 22))
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	half, started, told := false, time.Now(), time.Now()
	for {
		<-ticker.C
		if !slices.ContainsFunc(instances, running) {
			return
		}
		if rnd.IntN(3) == 0 {
			server.Do("SCRIPT", "FLUSH")
		}
		if time.Since(told) > 30*time.Second {
			told = time.Now()
			for i, p := range instances {
				t.Logf("after %v instance %d is %d%% through", told.Sub(started).Round(time.Second), i, len(p.Lines("percent")))
			}
		}
		half = half || !slices.ContainsFunc(instances, func(p *servicestest.Process) bool { return len(p.Lines("half")) == 0 })
		if half && rnd.IntN(4) == 0 {
			proxy := proxies[rnd.IntN(len(proxies))]
			if rnd.IntN(2) == 0 {
				proxy.LoseReplies(1 + rnd.IntN(3))
				continue
			}
			proxy.Cut()
			<-time.After(time.Duration(rnd.IntN(50)) * time.Millisecond)
			proxy.Restore()
		}
	}
}

func running(p *servicestest.Process) bool {
	select {
	case <-p.Ended():
		return false
	default:
		return true
	}
}
