package services

import (
	"bufio"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// longProof reports whether the proofs run in full: make proof.
func longProof() bool { return os.Getenv("GATEHOUSE_PROOF") != "" }

// proofInstance tells a test binary that runs again which instance it is.
type proofInstance struct {
	Addr      string
	Skew      time.Duration // of its clock
	Seed      uint64
	Decisions int
	Leased    bool
	File      string // where it writes what it saw
}

// proofRecord is one admission, refusal or refund that an instance saw.
type proofRecord struct {
	Policy, Key string
	At, Cost    int64 // the server's clock, in microseconds
	Refused     bool
	Until       int64 // an admission taken back: not later than this; 0: it was not
}

func proofPolicies(leased bool) []models.Policy {
	if leased {
		return []models.Policy{
			{Name: "leased", Limit: 200, Window: time.Second, Lease: 32, OnRedisDown: models.OnRedisDownClosed},
			{Name: "large", Limit: 2000, Window: 2 * time.Second, Lease: 200, OnRedisDown: models.OnRedisDownClosed},
		}
	}
	return []models.Policy{
		{Name: "log", Limit: 100, Window: time.Second, OnRedisDown: models.OnRedisDownClosed},
		{Name: "gcra", Limit: 300, Window: time.Second, Algorithm: models.AlgorithmGCRA, OnRedisDown: models.OnRedisDownClosed},
	}
}

// Four processes, their clocks up to 5 s off, random keys, costs and refunds,
// scripts flushed and connections cut: by the server's clock no window ever
// holds more than the limit, and while nothing is cut no refusal is wrong.
func TestProofRateLimitOracle(t *testing.T) {
	decisions := 100_000
	if longProof() {
		decisions = 10_000_000
	}
	proveWindows(t, decisions, false)
}

// The same with admissions taken in blocks.
func TestProofRateLimitLeaseOracle(t *testing.T) {
	decisions := 100_000
	if longProof() {
		decisions = 10_000_000
	}
	proveWindows(t, decisions, true)
}

func proveWindows(t *testing.T, decisions int, leased bool) {
	t.Helper()
	server := servicestest.StartRedis(t)
	folder := t.TempDir()
	var proxies []*servicestest.Proxy
	var half, done sync.WaitGroup
	files := make([]string, 4)
	for i := range 4 {
		proxy := servicestest.NewProxy(t, server.Addr)
		proxies = append(proxies, proxy)
		files[i] = filepath.Join(folder, fmt.Sprint(i))
		text, err := json.Marshal(proofInstance{
			Addr: proxy.Addr, Skew: []time.Duration{-5, 5, -1, 0}[i] * time.Second, Seed: uint64(i), Decisions: decisions / 4, Leased: leased, File: files[i],
		})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProofInstance$", "-test.timeout=30m")
		cmd.Env = append(os.Environ(), "GATEHOUSE_PROOF_INSTANCE="+string(text))
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		half.Add(1)
		done.Go(func() {
			lines := bufio.NewScanner(out)
			told := false
			var said []string
			for lines.Scan() {
				if said = append(said, lines.Text()); lines.Text() == "half" && !told {
					told = true
					half.Done()
				}
			}
			if !told {
				half.Done()
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("instance %d: %v: %s", i, err, strings.Join(said[:min(len(said), 20)], "\n"))
			}
		})
	}
	finished := make(chan struct{})
	go func() { done.Wait(); close(finished) }()
	healthy := make(chan struct{})
	go func() { half.Wait(); close(healthy) }()
	disturb(server, proxies, healthy, finished)
	if t.Failed() {
		return
	}
	checkWindows(t, files, leased)
}

// disturb flushes the scripts all the time and, once every instance is half
// through, cuts connections.
func disturb(server *servicestest.RedisServer, proxies []*servicestest.Proxy, healthy, finished chan struct{}) {
	rnd := rand.New(rand.NewPCG(21, 22))
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-finished:
			return
		case <-ticker.C:
		}
		server.Do("SCRIPT", "FLUSH")
		select {
		case <-healthy:
		default:
			continue
		}
		if rnd.IntN(4) == 0 {
			proxy := proxies[rnd.IntN(len(proxies))]
			proxy.Cut()
			<-time.After(time.Duration(rnd.IntN(50)) * time.Millisecond)
			proxy.Restore()
		}
	}
}

func checkWindows(t *testing.T, files []string, leased bool) {
	t.Helper()
	admitted, refused := map[limitKey][]proofRecord{}, map[limitKey][]proofRecord{}
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		var records []proofRecord
		if err := gob.NewDecoder(file).Decode(&records); err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		for _, r := range records {
			key := limitKey{r.Policy, r.Key}
			if r.Refused {
				refused[key] = append(refused[key], r)
			} else {
				admitted[key] = append(admitted[key], r)
			}
		}
	}
	for _, policy := range proofPolicies(leased) {
		window := policy.Window.Microseconds()
		total, wrong, highest := 0, 0, int64(0)
		for key, all := range admitted {
			if key.policy != policy.Name {
				continue
			}
			slices.SortFunc(all, func(a, b proofRecord) int { return int(a.At - b.At) })
			first, sum := 0, int64(0)
			for _, r := range all {
				if r.Until != 0 {
					continue
				}
				total++
				sum += r.Cost
				for ; all[first].Until != 0 || all[first].At <= r.At-window; first++ {
					if all[first].Until == 0 {
						sum -= all[first].Cost
					}
				}
				if highest = max(highest, sum); sum > policy.Limit {
					t.Errorf("%v: %d in the window that ends at %d, limit %d", key, sum, r.At, policy.Limit)
				}
			}
			if policy.Name != "log" {
				continue // what may still be in a bucket or a block is not seen from outside
			}
			for _, r := range refused[key] {
				used := int64(0)
				from, _ := slices.BinarySearchFunc(all, r.At-window+1, func(a proofRecord, at int64) int { return int(a.At - at) })
				for _, a := range all[from:] {
					if a.At > r.At {
						break
					}
					if a.Until == 0 || a.Until >= r.At {
						used += a.Cost
					}
				}
				if used+r.Cost <= policy.Limit {
					wrong++
				}
			}
		}
		t.Logf("%s: %d admissions kept, at most %d of %d in a window, %d wrong refusals", policy.Name, total, highest, policy.Limit, wrong)
		if total < 500 || wrong > 0 {
			t.Errorf("%s: %d admissions kept, %d wrong refusals", policy.Name, total, wrong)
		}
	}
}

// TestProofInstance is one of the processes of the proofs above.
func TestProofInstance(t *testing.T) {
	text := os.Getenv("GATEHOUSE_PROOF_INSTANCE")
	if text == "" {
		t.Skip("runs as a process of its own")
	}
	var me proofInstance
	if err := json.Unmarshal([]byte(text), &me); err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	redis := NewRedis(RedisOptions{Client: rueidis.ClientOption{InitAddress: []string{me.Addr}}, Logger: logger, Timeout: 5 * time.Second})
	l := NewRateLimiter(redis, RateLimiterOptions{Logger: logger, Clock: func() time.Time { return time.Now().Add(me.Skew) }})
	servicestest.Eventually(t, 10*time.Second, redis.Available, "Redis did not become available")
	var mu sync.Mutex
	var records []proofRecord
	work := func(worker uint64, decisions int, first bool) {
		w := proofWorker{l: l, me: me, rnd: rand.New(rand.NewPCG(me.Seed, worker)), first: first}
		for range decisions {
			w.step(t)
		}
		mu.Lock()
		defer mu.Unlock()
		records = append(records, w.records...)
	}
	const workers = 8
	for _, first := range []bool{true, false} {
		var wg sync.WaitGroup
		for worker := range uint64(workers) {
			wg.Go(func() { work(worker, me.Decisions/2/workers, first) })
		}
		wg.Wait()
		if first {
			fmt.Println("half")
		}
	}
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := redis.Close(t.Context()); err != nil {
		t.Error(err)
	}
	file, err := os.Create(me.File)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(gob.NewEncoder(file).Encode(records), file.Close()); err != nil {
		t.Fatal(err)
	}
}

type proofWorker struct {
	l       *RateLimiter
	me      proofInstance
	rnd     *rand.Rand
	first   bool // nothing is cut yet: refusals are recorded
	records []proofRecord
}

// step makes one decision and writes down what came of it.
func (w *proofWorker) step(t *testing.T) {
	policies := proofPolicies(w.me.Leased)
	policy := policies[w.rnd.IntN(len(policies))]
	hit := models.Hit{Policy: policy, Key: string(rune('a' + w.rnd.IntN(6))), Cost: 1 + w.rnd.Int64N(3)}
	if w.first && !w.me.Leased && w.rnd.IntN(8) == 0 {
		w.refusal(t, hit)
	}
	decisions, err := w.l.Take(context.Background(), "group", hit)
	if err != nil {
		if !errors.Is(err, models.ErrUnavailable) || w.first {
			t.Error(err)
		}
		<-time.After(time.Millisecond)
		return
	}
	d := decisions[0]
	if !d.Allowed {
		if w.rnd.IntN(5) == 0 { // else most decisions would be refusals from memory
			<-time.After(time.Duration(w.rnd.IntN(10)) * time.Millisecond)
		}
		return
	}
	e, err := parseEntry(d.ID)
	if err != nil {
		t.Error(err)
		return
	}
	r := proofRecord{Policy: policy.Name, Key: hit.Key, At: e.at, Cost: e.cost}
	if e.at == leasedEntry { // by this machine's clock, which is the server's too
		r.At = w.l.table.started.Add(-w.me.Skew).Add(time.Duration(e.localAt) * time.Microsecond).UnixMicro()
	}
	if w.rnd.IntN(10) == 0 {
		if err := w.l.Refund(context.Background(), d); err == nil {
			r.Until = time.Now().UnixMicro()
		} else if w.first {
			t.Error(err)
		} else {
			return // nobody can say whether it counts
		}
	}
	w.records = append(w.records, r)
}

// refusal looks, past what this instance remembers, and writes down a refusal
// with the server's time.
func (w *proofWorker) refusal(t *testing.T, hit models.Hit) {
	asks, err := w.l.prepare([]models.Hit{hit}, nil)
	if err != nil {
		t.Error(err)
		return
	}
	verdicts, err := w.l.run(context.Background(), tagOf("group", asks), asks, 0)
	if err != nil {
		t.Error(err)
		return
	}
	if v := verdicts[0]; !v.passes {
		w.records = append(w.records, proofRecord{Policy: hit.Policy.Name, Key: hit.Key, At: v.at, Cost: hit.Cost, Refused: true})
	}
}
