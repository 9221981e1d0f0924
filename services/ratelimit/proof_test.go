package ratelimit

import (
	"encoding/json"
	"fmt"
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
func oracleDecisions(t *testing.T, course proofCourse) int {
	t.Helper()
	if text := os.Getenv("GATEHOUSE_PROOF_DECISIONS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if servicestest.LongProof() {
		return 10_000_000 / course.share
	}
	return course.short
}

// proofCompany is which policies are asked together: any of those alike for one key. The two of the
// pair, if there is one, are always asked together, for two keys. The one that is steady is asked
// alone and now and then, so that its limit takes some seconds to reach. Of the others, as much as
// may pass has passed soon after Redis lost what it had.
type proofCompany struct {
	countsAlike, pair []models.Policy
	steady            models.Policy
	keys              int // 0 is proofKeys
}

func (c proofCompany) all() []models.Policy {
	return append(slices.Concat(c.countsAlike, c.pair), c.steady)
}

// proofBlocks is which blocks the policies use.
type proofBlocks string

const (
	noBlocks    proofBlocks = ""
	fixedBlocks proofBlocks = "fixed"
	autoBlocks  proofBlocks = "auto"
)

// proofPolicies are low enough to be reached on a busy machine.
func proofPolicies(blocks proofBlocks) proofCompany {
	const closed = models.OnRedisDownClosed
	switch blocks {
	case autoBlocks:
		const auto = models.BlockAuto
		return proofCompany{
			countsAlike: []models.Policy{
				{Name: "log", Limit: 150, Window: time.Second, Block: auto, OnRedisDown: closed},
				{Name: "gcra", Limit: 1500, Window: 5 * time.Second, Algorithm: models.AlgorithmGCRA, Block: auto, OnRedisDown: closed},
				{Name: "slow", Limit: 300, Window: 3 * time.Second, Block: auto, OnRedisDown: closed},
			},
			pair: []models.Policy{
				{Name: "pair-log", Limit: 150, Window: time.Second, Block: auto, OnRedisDown: closed},
				{Name: "pair-gcra", Limit: 1500, Window: 5 * time.Second, Algorithm: models.AlgorithmGCRA, Block: auto, OnRedisDown: closed},
			},
			keys:   4,
			steady: models.Policy{Name: "steady", Limit: 600, Window: 20 * time.Second, Block: auto, OnRedisDown: closed},
		}
	case fixedBlocks:
		return proofCompany{countsAlike: []models.Policy{
			{Name: "leased", Limit: 60, Window: time.Second, Block: 16, OnRedisDown: closed},
			{Name: "large", Limit: 400, Window: 2 * time.Second, Block: 100, OnRedisDown: closed},
			{Name: "beside", Limit: 40, Window: time.Second, OnRedisDown: closed},
		}, steady: models.Policy{Name: "steady", Limit: 600, Window: 20 * time.Second, Block: 8, OnRedisDown: closed}}
	}
	return proofCompany{
		countsAlike: []models.Policy{
			{Name: "log", Limit: 20, Window: time.Second, OnRedisDown: closed},
			{Name: "gcra", Limit: 30, Window: time.Second, Algorithm: models.AlgorithmGCRA, OnRedisDown: closed},
			{Name: "slow", Limit: 30, Window: 2 * time.Second, OnRedisDown: closed},
		},
		pair: []models.Policy{
			{Name: "pair-log", Limit: 12, Window: time.Second, OnRedisDown: closed},
			{Name: "pair-gcra", Limit: 20, Window: time.Second, Algorithm: models.AlgorithmGCRA, OnRedisDown: closed},
		},
		steady: models.Policy{Name: "steady", Limit: 600, Window: 20 * time.Second, OnRedisDown: closed},
	}
}

// Four processes with clocks up to 5 s off decide about random keys, costs and groups, and refund
// some. Meanwhile scripts are flushed, connections cut and replies lost. Redis is emptied, started
// again without data, and replaced by a replica that missed writes. By the server's clock no window
// of any policy ever holds more than the limit. That does not count what was admitted after Redis
// lost something until each instance had reached it for a second, and for as long as the machine
// was late. Hits decided together count together, and while nothing is cut no refusal is wrong.
func TestProofOracle(t *testing.T) {
	proveWindows(t, proofCourse{instances: 4, short: 25_000, share: 1})
}

// The same with admissions taken in blocks; what another instance has at hand
// may then be refused.
func TestProofBlockOracle(t *testing.T) {
	proveWindows(t, proofCourse{instances: 4, blocks: fixedBlocks, short: 8_000, share: 1})
}

// The same with blocks that size themselves. No refusal comes earlier than by a fiftieth.
func TestProofAutoOracle(t *testing.T) {
	proveWindows(t, proofCourse{instances: 4, blocks: autoBlocks, short: 25_000, share: 1})
}

// With one instance nothing is excused, however often Redis loses what it has.
func TestProofOracleOfOneInstance(t *testing.T) {
	proveWindows(t, proofCourse{instances: 1, short: 6_000, share: 4})
}

func TestProofBlockOracleOfOneInstance(t *testing.T) {
	proveWindows(t, proofCourse{instances: 1, blocks: fixedBlocks, short: 4_000, share: 8})
}

func TestProofAutoOracleOfOneInstance(t *testing.T) {
	proveWindows(t, proofCourse{instances: 1, blocks: autoBlocks, short: 12_000, share: 4})
}

type proofCourse struct {
	instances int
	blocks    proofBlocks
	short     int // decisions where it is not made in full
	share     int // of the decisions of one that is
}

func proveWindows(t *testing.T, course proofCourse) {
	t.Helper()
	decisions := oracleDecisions(t, course)
	servers := newProofServers(t)
	folder, started := t.TempDir(), time.Now()
	var instances []*servicestest.Process
	var files []string
	for i, skew := range []time.Duration{-5, 5, -1, 0}[:course.instances] {
		proxy := servicestest.NewProxy(t, servers.master.Addr)
		me := proofSetup{
			Addr: proxy.Addr, Skew: skew * time.Second, Seed: uint64(i), Decisions: decisions / course.instances,
			Blocks: course.blocks, File: filepath.Join(folder, fmt.Sprint(i)),
		}
		text, err := json.Marshal(me)
		if err != nil {
			t.Fatal(err)
		}
		servers.proxies, files = append(servers.proxies, proxy), append(files, me.File)
		instances = append(instances, servicestest.RunAgain(t, "TestProofInstance", "GATEHOUSE_PROOF_RATE_LIMIT="+string(text)))
	}
	pause := 6 * time.Second
	if course.instances == 1 {
		pause = 300 * time.Millisecond
	}
	lost := disturb(t, servers, instances, pause)
	slack := make([]time.Duration, len(lost))
	for i := range lost { // soon: what it is taken from is not kept for long
		slack[i] = servicestest.Slack(time.UnixMicro(lost[i].from))
	}
	for i, p := range instances {
		if len(p.Lines("PASS")) != 1 {
			said := slices.DeleteFunc(p.Lines(""), func(line string) bool { return line == "percent" })
			t.Errorf("instance %d: %q", i, said[:min(len(said), 20)])
		}
	}
	if t.Failed() {
		return
	}
	t.Logf("%d decisions in %v, %d losses", decisions, time.Since(started).Round(time.Second/10), len(lost))
	if len(lost) == 0 {
		t.Error("Redis lost nothing")
	}
	history, delays := readHistory(t, files)
	if course.instances == 1 {
		lost = nil
	}
	var after []time.Duration
	for i := range lost {
		lost[i].to = publishedAgain(lost[i], delays, slack[i])
		after = append(after, time.Duration(lost[i].to-lost[i].from)*time.Microsecond)
	}
	t.Logf("after each loss is excused: %v", after)
	refused, fromBlocks, keptAfter := 0, 0, 0
	for i, policy := range proofPolicies(course.blocks).all() {
		excused, length := slices.Clone(lost), int64(0)
		switch window := policy.Window.Microseconds(); {
		case policy.Block > 0:
			length = blockLength(window)
		case policy.Block == models.BlockAuto:
			length = autoLength(window)
		}
		for j := range excused { // units of a block taken in time are used until its end
			excused[j].to += length
		}
		found := checkHistory(history, i, policy, excused)
		t.Logf("%s: %+v", policy.Name, found)
		few := found.Kept < 50 || course.instances > 1 && course.blocks == noBlocks && found.Refused < 50
		refused, fromBlocks, keptAfter = refused+found.Refused, fromBlocks+found.FromBlocks, keptAfter+found.KeptAfter
		if policy == proofPolicies(course.blocks).steady { // how much of it there is depends on the time alone
			few = found.Kept == 0
		}
		if found.Highest > policy.Limit || found.WronglyRefused > 0 || few {
			t.Errorf("%s, limit %d: %+v", policy.Name, policy.Limit, found)
			for _, s := range excused {
				if s.from < found.HighestAt && s.to > found.HighestAt-policy.Window.Microseconds() {
					t.Logf("excused from %d to %d ms before", (found.HighestAt-s.from)/1000, (found.HighestAt-s.to)/1000)
				}
			}
		}
	}
	if course.blocks == autoBlocks && (fromBlocks < 50 || course.instances > 1 && refused < 50) {
		t.Errorf("%d from blocks and %d refusals are few", fromBlocks, refused)
	}
	if course.instances > 1 && keptAfter == 0 && servicestest.LongProof() { // a short one may end first
		t.Error("all that was admitted after a loss is excused: the machine is too busy to prove anything")
	}
}
