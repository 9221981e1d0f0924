package ratelimit

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
)

const (
	proofKeys    = 16
	proofWorkers = 8
	// clockSlack is how far apart two processes may read the clock of one machine.
	clockSlack = int64(2 * time.Millisecond / time.Microsecond)
)

// proofSetup tells a test binary that runs again which instance it is.
type proofSetup struct {
	Addr      string
	Skew      time.Duration // of its clock
	Seed      uint64
	Decisions int
	Blocks    proofBlocks
	File      string // where it writes what it saw
}

// proofRecord is what an instance saw of one hit, times in microseconds of the
// server's clock.
type proofRecord struct {
	// At is when it was admitted, or not before it was refused.
	At int64
	// From is not after it was refused.
	From int64
	// Until is not before an admission was taken back; 0: it was not.
	Until       int64
	Policy, Key int16
	Cost        int16
	What        proofOutcome
	FromBlock   uint8 // 1 if it came from a block that sizes itself
}

type proofOutcome uint8

const (
	proofAdmitted proofOutcome = iota
	proofRefused               // by Take, perhaps from memory, alone or in a group
	proofLooked                // the script would have refused it
	proofLate                  // no decision: from From until At nothing ran of the instance that is Key
	proofAway                  // no decision: from From until At Redis was away for it
)

// noPolicy is the policy of a record that is about no decision.
const noPolicy = -1

// refundable reports whether hits on a key are taken back. Those on the others
// never are, so that it is plain what counts.
func refundable(key int) bool { return key%2 == 1 }

func proofKey(key int) string { return "k" + fmt.Sprint(key) }

// TestProofInstance is not a test: run again in a process of its own, it is one of the processes of
// the oracle.
func TestProofInstance(t *testing.T) {
	text := os.Getenv("GATEHOUSE_PROOF_RATE_LIMIT")
	if text == "" {
		return
	}
	var me proofSetup
	if err := json.Unmarshal([]byte(text), &me); err != nil {
		t.Fatal(err)
	}
	rdb := redistest.New(t, me.Addr)
	l := New(rdb, Options{Logger: redistest.Quiet(), Clock: func() time.Time { return time.Now().Add(me.Skew) }})
	file, err := os.Create(me.File)
	if err != nil {
		t.Fatal(err)
	}
	history := &proofHistory{w: bufio.NewWriter(file)}
	ctx, stop := context.WithCancel(t.Context())
	var watch sync.WaitGroup
	watch.Go(func() { history.noteDelays(ctx, rdb, me) })
	var made atomic.Int64
	percent := int64(max(1, me.Decisions/100))
	for _, healthy := range []bool{true, false} {
		var wg sync.WaitGroup
		var late atomic.Int64
		for i := range uint64(proofWorkers) {
			w := proofWorker{t: t, l: l, me: me, policies: proofPolicies(me.Blocks), rnd: rand.New(rand.NewPCG(me.Seed, i)), healthy: healthy, late: &late, history: history}
			wg.Go(func() {
				for range me.Decisions / 2 / proofWorkers {
					for !w.step() {
						continue
					}
					if made.Add(1)%percent == 0 {
						fmt.Println("percent")
					}
				}
			})
		}
		wg.Wait()
		if healthy {
			if percent := int64(me.Decisions) / 200; me.Blocks == autoBlocks && late.Load() > percent {
				t.Errorf("%d of %d decisions failed without an outage", late.Load(), me.Decisions/2)
			}
			fmt.Println("half")
		}
	}
	stop()
	watch.Wait()
	if err := errors.Join(l.Close(t.Context()), history.err, history.w.Flush(), file.Close()); err != nil {
		t.Fatal(err)
	}
}

// proofHistory is written as it happens: a long one does not fit in memory.
type proofHistory struct {
	mu  sync.Mutex
	w   *bufio.Writer
	err error
}

func (h *proofHistory) write(r proofRecord) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := h.w.Write(r.appendTo(h.w.AvailableBuffer())); err != nil {
		h.err = err
	}
}

// noteDelays writes down, until ctx ends, what keeps this instance from publishing: that nothing of
// it runs, on a busy machine, or that it takes Redis for away.
func (h *proofHistory) noteDelays(ctx context.Context, rdb *redis.Client, me proofSetup) {
	const sleep = 5 * time.Millisecond
	for before := time.Now(); ctx.Err() == nil; {
		<-time.After(sleep)
		now := time.Now()
		delay := proofRecord{From: before.UnixMicro(), At: now.UnixMicro(), Policy: noPolicy, Key: int16(me.Seed), What: proofAway}
		if !rdb.AnyAvailable() {
			h.write(delay)
		}
		if late := now.Sub(before) - sleep; late > time.Millisecond {
			delay.What, delay.From = proofLate, delay.At-late.Microseconds()
			h.write(delay)
		}
		before = now
	}
}

// proofRecordSize is the length of a record in a file.
const proofRecordSize = 3*8 + 3*2 + 2

// appendTo appends the record as it stands in a file.
func (r proofRecord) appendTo(to []byte) []byte {
	for _, at := range []int64{r.At, r.From, r.Until} {
		to = binary.LittleEndian.AppendUint64(to, uint64(at))
	}
	for _, n := range []int16{r.Policy, r.Key, r.Cost} {
		to = binary.LittleEndian.AppendUint16(to, uint16(n))
	}
	return append(to, byte(r.What), r.FromBlock)
}

// proofRecordOf is the record that appendTo has written.
func proofRecordOf(line [proofRecordSize]byte) proofRecord {
	at := func(i int) int64 { return int64(binary.LittleEndian.Uint64(line[8*i:])) }
	n := func(i int) int16 { return int16(binary.LittleEndian.Uint16(line[24+2*i:])) }
	return proofRecord{
		At: at(0), From: at(1), Until: at(2), Policy: n(0), Key: n(1), Cost: n(2),
		What: proofOutcome(line[30]), FromBlock: line[31],
	}
}

type proofWorker struct {
	t        *testing.T
	l        *Limiter
	me       proofSetup
	policies proofCompany
	rnd      *rand.Rand
	healthy  bool // nothing is cut yet: refusals are recorded
	late     *atomic.Int64
	history  *proofHistory
	steady   time.Time // when it asks that policy again
}

// hits are what one decision is about: a policy alone, or up to three for one key. Or they are the
// two that are always asked together, each for a key of its own.
func (w *proofWorker) hits() (hits []models.Hit, records []proofRecord) {
	if now := time.Now(); now.After(w.steady) {
		w.steady = now.Add(time.Duration(50+w.rnd.IntN(100)) * time.Millisecond)
		key := w.rnd.IntN(2)
		hits = []models.Hit{{Policy: w.policies.steady, Key: proofKey(key), Cost: 1}}
		return hits, []proofRecord{{Policy: int16(len(w.policies.all()) - 1), Key: int16(key), Cost: 1}}
	}
	keys := cmp.Or(w.policies.keys, proofKeys)
	key := w.rnd.IntN(1 + w.rnd.IntN(keys))
	add := func(policy, key int) {
		p, cost := w.policies.all()[policy], 1+w.rnd.Int64N(3)
		if w.me.Blocks == autoBlocks && w.rnd.IntN(8) > 0 {
			cost = 1 // a block is of one cost
		}
		hits = append(hits, models.Hit{Policy: p, Key: proofKey(key), Cost: cost})
		records = append(records, proofRecord{Policy: int16(policy), Key: int16(key), Cost: int16(cost)})
	}
	if pair := w.policies.pair; len(pair) > 0 && w.rnd.IntN(4) == 0 {
		add(len(w.policies.countsAlike), key)
		add(len(w.policies.countsAlike)+1, (key+1+w.rnd.IntN(3))%keys)
		return hits, records
	}
	many := 1
	if w.rnd.IntN(3) == 0 {
		many = 2 + w.rnd.IntN(2)
	}
	for _, policy := range w.rnd.Perm(len(w.policies.countsAlike))[:many] {
		add(policy, key)
	}
	return hits, records
}

// step makes one decision and writes down what came of it. It reports false if
// there was none.
func (w *proofWorker) step() bool {
	hits, records := w.hits()
	oneIn := 8
	if w.me.Blocks == autoBlocks { // whose blocks need many decisions
		oneIn = 16
	}
	judged := w.healthy && w.me.Blocks != fixedBlocks && w.rnd.IntN(oneIn) == 0
	if judged {
		w.look(hits, records)
	}
	from := time.Now().UnixMicro() - clockSlack
	decisions, err := w.l.Take(context.Background(), "group", hits...)
	if err != nil {
		// On a busy machine a block may come when it is over.
		failed := !errors.Is(err, models.ErrUnavailable) || w.healthy && w.me.Blocks == noBlocks
		if failed {
			w.t.Error(err)
		}
		w.late.Add(1)
		<-time.After(5 * time.Millisecond)
		return failed
	}
	refused := slices.ContainsFunc(decisions, func(d models.Decision) bool { return !d.Allowed })
	to := time.Now().UnixMicro() + clockSlack
	for i, d := range decisions {
		if counted := d.Admission != (models.Admission{}); counted == refused {
			w.t.Errorf("refused: %v, and counted: %v in %+v", refused, counted, decisions)
		}
		switch {
		case !refused:
			w.admitted(d, records[i])
		case !d.Allowed && judged:
			records[i].What, records[i].From, records[i].At = proofRefused, from, to
			w.history.write(records[i])
		}
	}
	if refused && w.rnd.IntN(10) == 0 { // else most decisions would be refusals from memory
		<-time.After(time.Duration(w.rnd.IntN(10)) * time.Millisecond)
	}
	return true
}

// admitted writes down an admission, some of them taken back at once.
func (w *proofWorker) admitted(d models.Decision, record proofRecord) {
	record.At = d.Admission.At
	// By this machine's clock, which is the server's too.
	here := w.l.local.started.Add(-w.me.Skew).Add(time.Duration(d.Admission.LocalAt) * time.Microsecond).UnixMicro()
	if d.Policy.Block == models.BlockAuto && (d.Admission.ID == 0 || d.Admission.At > here+blockDrift/2) {
		record.FromBlock = 1
	}
	if record.FromBlock > 0 || d.Admission.At == blockAdmission {
		record.At = here
	}
	if refundable(int(record.Key)) && w.rnd.IntN(5) == 0 {
		switch err := w.l.Refund(context.Background(), d); {
		case err == nil:
			record.Until = time.Now().UnixMicro() + clockSlack
		case w.healthy:
			w.t.Error(err)
		default:
			return // whether it counts is not known
		}
	}
	w.history.write(record)
}

// look asks Redis, past what this instance remembers, and writes down the refusals
// with the server's time.
func (w *proofWorker) look(hits []models.Hit, records []proofRecord) {
	requests, err := w.l.prepare(hits, nil)
	if err != nil {
		w.t.Error(err)
		return
	}
	results, err := w.l.run(context.Background(), tagOf("group", requests), requests, 0)
	if err != nil {
		w.t.Error(err)
		return
	}
	for i, v := range results {
		if record := records[i]; !v.passes {
			record.What, record.From, record.At = proofLooked, v.at, v.at
			w.history.write(record)
		}
	}
}
