package ratelimit

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// memorySlack is how much older than a refusal what it is based on may be. A denial is believed for
// a second, and 100 ms more while one call asks.
const memorySlack = int64(1500 * time.Millisecond / time.Microsecond)

// readHistory is what all instances saw, by policy, key and time, and what delayed them, by instance
// and time.
func readHistory(t *testing.T, files []string) (all, delays []proofRecord) {
	t.Helper()
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		var line [proofRecordSize]byte
		for in := bufio.NewReader(file); err == nil; {
			if _, err = io.ReadFull(in, line[:]); err == nil {
				all = append(all, proofRecordOf(line))
			}
		}
		if !errors.Is(err, io.EOF) || file.Close() != nil {
			t.Fatal(err)
		}
	}
	slices.SortFunc(all, func(a, b proofRecord) int {
		return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Key, b.Key), cmp.Compare(a.At, b.At))
	})
	n := slices.IndexFunc(all, func(r proofRecord) bool { return r.Policy != noPolicy })
	if n < 0 {
		n = len(all)
	}
	return all[n:], all[:n]
}

// proofFinding is what a history says about one policy.
type proofFinding struct {
	Kept           int   // admissions that were not taken back
	TakenBack      int   // those that were
	Excused        int   // those soon after Redis lost something, which do not count
	KeptAfter      int   // those of Kept that came after Redis lost something
	Highest        int64 // most units in any window
	HighestAt      int64 // when the fullest window ends
	Refused        int   // refusals judged
	FromBlocks     int   // admissions from blocks that size themselves
	WronglyRefused int   // those that nothing admitted before explains
}

// span is from when Redis had lost something until all instances must have published it again,
// in microseconds of its clock.
type span struct{ from, to int64 }

func inOneOf(spans []span, at int64) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return s.from <= at && at <= s.to })
}

// publishedAgain is when all instances must have published again what they admitted before a loss: a
// second later. What an instance was late, or took Redis for away, comes on top. slack is what the
// others were late, such as Redis itself.
func publishedAgain(lost span, delays []proofRecord, slack time.Duration) (latest int64) {
	due := lost.to + time.Second.Microseconds()
	latest = due + slack.Microseconds()
	for len(delays) > 0 {
		n := slices.IndexFunc(delays, func(r proofRecord) bool { return r.Key != delays[0].Key })
		if n < 0 {
			n = len(delays)
		}
		until, away, late := due+slack.Microseconds(), int64(0), time.Duration(0)
		for _, d := range delays[:n] {
			took := d.At - max(d.From, lost.from)
			switch {
			case took < 0 || d.From > until:
				continue
			case d.What == proofAway:
				away += took
			default:
				late = max(late, time.Duration(took)*time.Microsecond)
			}
			until = max(until, due+away+max(slack, servicestest.SlackOf(late)).Microseconds())
		}
		latest, delays = max(latest, until), delays[n:]
	}
	return latest
}

// checkHistory judges the records of the i-th policy, sorted as by readHistory. What was
// admitted within the spans does not count: that is what remains of a loss where several
// instances admit.
func checkHistory(history []proofRecord, i int, policy models.Policy, lost []span) (found proofFinding) {
	for len(history) > 0 {
		first := history[0]
		n := slices.IndexFunc(history, func(r proofRecord) bool { return r.Policy != first.Policy || r.Key != first.Key })
		if n < 0 {
			n = len(history)
		}
		if int(first.Policy) == i {
			found.judge(history[:n], policy, lost)
		}
		history = history[n:]
	}
	return found
}

// judge adds what the records of one key say.
func (f *proofFinding) judge(records []proofRecord, policy models.Policy, lost []span) {
	var admitted, refused []proofRecord
	for _, r := range records {
		if r.What == proofAdmitted {
			admitted = append(admitted, r)
		} else {
			refused = append(refused, r)
		}
	}
	counts := func(r proofRecord) bool { return r.Until == 0 && !inOneOf(lost, r.At) }
	for _, r := range admitted {
		switch {
		case r.Until != 0:
			f.TakenBack++
		case !counts(r):
			f.Excused++
		default:
			f.Kept++
			f.FromBlocks += int(r.FromBlock)
			if len(lost) > 0 && r.At > lost[0].to {
				f.KeptAfter++
			}
		}
	}
	kept := slices.DeleteFunc(slices.Clone(admitted), func(r proofRecord) bool { return !counts(r) })
	if units, last := fullestWindow(kept, policy.Window.Microseconds()); units > f.Highest {
		f.Highest, f.HighestAt = units, last.At
	}
	explained := logExplains
	if ruleOf(&policy).burst > 0 {
		explained = bucketExplains
	}
	slices.SortFunc(refused, func(a, b proofRecord) int { return cmp.Compare(a.From, b.From) })
	r := ruleOf(&policy)
	if policy.Block == models.BlockAuto { // what an instance has at hand, and units that leave when their block ends
		r.burst = max(0, r.burst-r.limit/50)
		r.limit -= r.limit / 50
		r.window += autoLength(r.window)
	}
	wrong, judged := explained(admitted, refused, r)
	f.Refused += judged
	f.WronglyRefused += wrong
}

// fullestWindow returns the most units in any window of the admissions, and the admission that it
// ends with.
func fullestWindow(admitted []proofRecord, window int64) (most int64, last proofRecord) {
	oldest, sum := 0, int64(0)
	for _, r := range admitted {
		sum += int64(r.Cost)
		for ; admitted[oldest].At <= r.At-window; oldest++ {
			sum -= int64(admitted[oldest].Cost)
		}
		if sum > most {
			most, last = sum, r
		}
	}
	return most, last
}

// logExplains counts the refusals that even all units that may have counted at
// any moment in question do not explain.
func logExplains(admitted, refused []proofRecord, r rule) (wrong, judged int) {
	for _, no := range refused {
		used := int64(no.Cost)
		believed := no.From
		if no.What == proofRefused {
			believed -= memorySlack
		}
		from, _ := slices.BinarySearchFunc(admitted, no.From-r.window+1, func(a proofRecord, at int64) int { return cmp.Compare(a.At, at) })
		for _, yes := range admitted[from:] {
			if yes.At > no.At {
				break
			}
			if yes.Until == 0 || yes.Until >= believed {
				used += int64(yes.Cost)
			}
		}
		if judged++; used <= r.limit {
			wrong++
		}
	}
	return wrong, judged
}

// bucketExplains does the same with the bucket itself. It judges the keys that
// nothing is taken back from: how much had leaked out then is not seen from outside.
func bucketExplains(admitted, refused []proofRecord, r rule) (wrong, judged int) {
	var b bucket
	next := 0
	for _, no := range refused {
		if refundable(int(no.Key)) {
			continue
		}
		for ; next < len(admitted) && admitted[next].At <= no.From; next++ {
			b.add(admitted[next].At, r, int64(admitted[next].Cost))
		}
		most := b
		for _, yes := range admitted[next:] {
			if yes.At > no.At {
				break
			}
			most.add(no.From, r, int64(yes.Cost))
		}
		if judged++; most.look(no.From, r, int64(no.Cost)).passes {
			wrong++
		}
	}
	return wrong, judged
}

// The judge finds what it is there to find.
func TestProofJudge(t *testing.T) {
	const second = 1_000_000
	yes := func(at int64, cost int16, until int64) proofRecord {
		return proofRecord{At: at, Cost: cost, Until: until}
	}
	no := func(what proofOutcome, from, at int64, cost int16) proofRecord {
		return proofRecord{What: what, From: from, At: at, Cost: cost}
	}
	log := models.Policy{Name: "log", Limit: 3, Window: time.Second}
	gcra := models.Policy{Name: "gcra", Limit: 20, Window: time.Second, Algorithm: models.AlgorithmGCRA} // 2 at once, one each 56 ms
	for _, row := range []struct {
		name    string
		policy  models.Policy
		records []proofRecord
		lost    []span
		want    proofFinding
	}{
		{"a full window", log, []proofRecord{yes(1, 2, 0), yes(second, 1, 0), yes(second+1, 2, 0)}, nil, proofFinding{Kept: 3, Highest: 3}},
		{"one too many", log, []proofRecord{yes(1, 2, 0), yes(second, 2, 0)}, nil, proofFinding{Kept: 2, Highest: 4}},
		{"one too many but taken back", log, []proofRecord{yes(1, 2, 0), yes(2, 1, 3), yes(second, 1, 0)}, nil, proofFinding{Kept: 2, TakenBack: 1, Highest: 3}},
		{"one too many after a loss", log, []proofRecord{yes(1, 3, 0), yes(5, 3, 0), yes(9, 0, 0)}, []span{{2, 5}}, proofFinding{Kept: 2, KeptAfter: 1, Excused: 1, Highest: 3}},
		{"one too many after that", log, []proofRecord{yes(1, 3, 0), yes(5, 3, 0), yes(9, 1, 0)}, []span{{2, 5}}, proofFinding{Kept: 2, KeptAfter: 1, Excused: 1, Highest: 4}},
		{"refused with reason", log, []proofRecord{yes(1, 3, 0), no(proofLooked, second, second, 1)}, nil, proofFinding{Kept: 1, Highest: 3, Refused: 1}},
		{"refused too long", log, []proofRecord{yes(1, 3, 0), no(proofLooked, second+1, second+1, 1)}, nil, proofFinding{Kept: 1, Highest: 3, Refused: 1, WronglyRefused: 1}},
		{"refused from memory too long", log, []proofRecord{yes(1, 3, 0), no(proofRefused, second+1, second+9, 1)}, nil, proofFinding{Kept: 1, Highest: 3, Refused: 1, WronglyRefused: 1}},
		{"looked at after a refund", log, []proofRecord{yes(1, 3, 5), no(proofLooked, 6, 6, 1)}, nil, proofFinding{TakenBack: 1, Refused: 1, WronglyRefused: 1}},
		{"remembered after a refund elsewhere", log, []proofRecord{yes(1, 3, 5), no(proofRefused, 6, 9, 1)}, nil, proofFinding{TakenBack: 1, Refused: 1}},
		{"a bucket that is full", gcra, []proofRecord{yes(second, 2, 0), no(proofLooked, second+10_000, second+10_000, 1)}, nil, proofFinding{Kept: 1, Highest: 2, Refused: 1}},
		{"a bucket with room", gcra, []proofRecord{yes(second, 2, 0), no(proofLooked, second+60_000, second+60_000, 1)}, nil, proofFinding{Kept: 1, Highest: 2, Refused: 1, WronglyRefused: 1}},
		{"a bucket filled meanwhile", gcra, []proofRecord{yes(second, 2, 0), yes(second+65_000, 1, 0), no(proofRefused, second+60_000, second+70_000, 1)}, nil, proofFinding{Kept: 2, Highest: 3, Refused: 1}},
	} {
		got := checkHistory(row.records, 0, row.policy, row.lost)
		ends := got.HighestAt
		if got.HighestAt = 0; got != row.want {
			t.Errorf("%s: %+v, want %+v", row.name, got, row.want)
		}
		if row.name == "one too many after that" && ends != 9 {
			t.Errorf("%s: the fullest window ends at %d", row.name, ends)
		}
	}
}

// What delays an instance lengthens the time in which it may publish again, and nothing else does.
func TestPublishedAgain(t *testing.T) {
	const second, ms, from = 1_000_000, 1000, 5_000_000
	delay := func(what proofOutcome, instance int16, at, took int64) proofRecord {
		return proofRecord{Policy: noPolicy, Key: instance, What: what, From: from + at, At: from + at + took}
	}
	for _, row := range []struct {
		name   string
		delays []proofRecord
		want   int64 // after the second
	}{
		{"none", nil, 0},
		{"before the loss", []proofRecord{delay(proofAway, 0, -9*ms, 8*ms), delay(proofLate, 0, -9*ms, 8*ms)}, 0},
		{"later", []proofRecord{delay(proofAway, 0, second+1, ms)}, 0},
		{"away twice", []proofRecord{delay(proofAway, 0, ms, 9*ms), delay(proofAway, 0, 20*ms, 3*ms)}, 12 * ms},
		{"away since before the loss", []proofRecord{delay(proofAway, 0, -5*ms, 9*ms)}, 4 * ms},
		{"away again in what that adds", []proofRecord{delay(proofAway, 0, ms, 9*ms), delay(proofAway, 0, second+5*ms, 3*ms)}, 12 * ms},
		{"late twice", []proofRecord{delay(proofLate, 0, ms, 9*ms), delay(proofLate, 0, 20*ms, 3*ms)}, 450 * ms},
		{"late and away", []proofRecord{delay(proofLate, 0, ms, 2*ms), delay(proofAway, 0, 20*ms, 3*ms)}, 103 * ms},
		{"late since before the loss", []proofRecord{delay(proofLate, 0, -5*ms, 9*ms)}, 200 * ms},
		{"two instances", []proofRecord{delay(proofAway, 0, ms, 9*ms), delay(proofAway, 1, ms, 20*ms), delay(proofAway, 2, ms, 3*ms)}, 20 * ms},
	} {
		if got := publishedAgain(span{from, from}, row.delays, 0) - from - second; got != row.want {
			t.Errorf("%s: %d us after the second, want %d", row.name, got, row.want)
		}
	}
	late := []proofRecord{delay(proofLate, 0, ms, 9*ms), delay(proofAway, 0, ms, 3*ms)}
	for slack, want := range map[time.Duration]int64{time.Millisecond: 453 * ms, time.Second: second + 3*ms} {
		if got := publishedAgain(span{from, from + ms}, late, slack) - from - ms - second; got != want {
			t.Errorf("%d us after the second where the others were %v late, want %d", got, slack, want)
		}
	}
}
