package ratelimit

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
)

func askOf(policy models.Policy, key string, cost int64) ask {
	return newAsk(&models.Hit{Policy: policy, Key: key, Cost: cost})
}

// tell lets the table learn what Redis said about one hit, asked just now.
func tell(t *limitTable, a ask, v verdict) {
	sent, generation := t.sending()
	t.learn([]ask{a}, []verdict{v}, v.passes, 1, sent, generation)
}

// refusedBy is what the table decides about a hit by itself, nil if Redis is to be asked.
func refusedBy(t *limitTable, a ask) []models.Decision {
	verdicts := t.denied([]ask{a}, nil)
	if verdicts == nil {
		return nil
	}
	return []models.Decision{a.decision(verdicts[0])}
}

func TestLimitTableRemembersADenial(t *testing.T) {
	policy := models.Policy{Name: "p", Limit: 10, Window: time.Minute}
	a := askOf(policy, "k", 3)
	const retry = 2500 // milliseconds
	for _, row := range []struct {
		name   string
		after  time.Duration
		ask    ask
		denied bool
	}{
		{"at once", 0, a, true},
		{"a dearer hit, which waits longer", 0, askOf(policy, "k", 4), false},
		{"a cheaper hit", 0, askOf(policy, "k", 2), false},
		{"another key", 0, askOf(policy, "other", 3), false},
		{"another policy", 0, askOf(models.Policy{Name: "q", Limit: 10, Window: time.Minute}, "k", 3), false},
		{"a raised limit", 0, askOf(models.Policy{Name: "p", Limit: 11, Window: time.Minute}, "k", 3), false},
		{"just before the second is over", 999 * time.Millisecond, a, true},
		{"after a second", time.Second, a, false},
		{"when it may pass", retry * time.Millisecond, a, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := newLimitTable(0, nil)
				tell(table, a, verdict{remaining: 2, retry: retry * 1000, more: 1_000_000})
				time.Sleep(row.after)
				ds := refusedBy(table, row.ask)
				if denied := ds != nil; denied != row.denied {
					t.Fatalf("denied %v, want %v", denied, row.denied)
				}
				if ds == nil {
					return
				}
				if d := ds[0]; d.Allowed || d.Remaining != 2 || d.RetryAfter != retry*time.Millisecond-row.after || d.ResetAfter != time.Second-row.after {
					t.Errorf("%v later: %+v", row.after, d)
				}
			})
		})
	}
}

// A short denial ends when the hit may pass, counted from before it was asked;
// what clients are told counts from the answer.
func TestLimitTableNeverDeniesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newLimitTable(0, nil)
		a := askOf(models.Policy{Name: "p", Limit: 1, Window: time.Second}, "k", 1)
		sent, generation := table.sending()
		time.Sleep(50 * time.Millisecond) // the way there and back
		table.learn([]ask{a}, []verdict{{retry: 200_000}}, false, 1, sent, generation)
		if ds := refusedBy(table, a); len(ds) != 1 || ds[0].RetryAfter != 200*time.Millisecond {
			t.Errorf("told %+v, want a refusal for 200 ms from the answer", ds)
		}
		time.Sleep(149 * time.Millisecond)
		if refusedBy(table, a) == nil {
			t.Error("forgotten too early")
		}
		time.Sleep(time.Millisecond)
		if refusedBy(table, a) != nil {
			t.Error("200 ms after it was asked it is still denied")
		}
	})
}

// When the second is over one call asks again, the others go on being refused.
func TestLimitTableOneCallRenewsADenial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newLimitTable(0, nil)
		a := askOf(models.Policy{Name: "p", Limit: 1, Window: time.Minute}, "k", 1)
		tell(table, a, verdict{retry: 60_000_000})
		time.Sleep(time.Second)
		if refusedBy(table, a) != nil {
			t.Error("nobody asks again")
		}
		if refusedBy(table, a) == nil {
			t.Error("a second call asks as well")
		}
		time.Sleep(100 * time.Millisecond) // the one who asked got no answer
		if refusedBy(table, a) != nil {
			t.Error("nobody asks after the first who asked got no answer")
		}
		tell(table, a, verdict{passes: true})
		if refusedBy(table, a) != nil {
			t.Error("denied although it passed")
		}
	})
}

func TestLimitTableDropsADenialThatWasOnItsWay(t *testing.T) {
	a := askOf(models.Policy{Name: "p", Limit: 1, Window: time.Minute}, "k", 1)
	for name, settle := range map[string]func(*limitTable){
		"refund": func(t *limitTable) { t.refund(a, 1, 0) },
		"reset":  func(t *limitTable) { t.reset(a) },
	} {
		table := newLimitTable(0, nil)
		tell(table, a, verdict{retry: 60_000_000})
		sent, generation := table.sending()
		settle(table)
		if refusedBy(table, a) != nil {
			t.Errorf("%s: still denied", name)
		}
		table.learn([]ask{a}, []verdict{{retry: 60_000_000}}, false, 1, sent, generation)
		if refusedBy(table, a) != nil {
			t.Errorf("%s: denied by an answer from before", name)
		}
		tell(table, a, verdict{retry: 60_000_000})
		if refusedBy(table, a) == nil {
			t.Errorf("%s: an answer from after is not believed", name)
		}
	}
}

// Without Redis the limiter goes on from what passed through Redis just before.
func TestLimitTableGoesOnFromTheRecentPast(t *testing.T) {
	for _, policy := range []models.Policy{
		{Name: "log", Limit: 10, Window: time.Minute},
		{Name: "gcra", Limit: 100, Window: time.Minute, Algorithm: models.AlgorithmGCRA},
	} {
		synctest.Test(t, func(t *testing.T) {
			table := newLimitTable(0, nil)
			a := askOf(policy, "k", 2)
			for range 4 {
				tell(table, a, verdict{passes: true})
			}
			verdicts, counted := table.decide([]ask{a}, 2)
			if !counted || verdicts[0].remaining != 0 {
				t.Errorf("%s: %+v, want the last two units", policy.Name, verdicts)
			}
			if verdicts, counted = table.decide([]ask{a}, 3); counted || verdicts[0].passes || verdicts[0].retry == 0 {
				t.Errorf("%s: %+v over the limit", policy.Name, verdicts)
			}
			time.Sleep(time.Minute)
			if _, counted = table.decide([]ask{a}, 4); !counted {
				t.Errorf("%s: refused a window later", policy.Name)
			}
		})
	}
}

func TestLimitTableIsBounded(t *testing.T) {
	t.Parallel()
	table := newLimitTable(100, nil)
	policy := models.Policy{Name: "p", Limit: 1000, Window: time.Hour}
	for i := range 5000 {
		a := askOf(policy, fmt.Sprint(i), 1)
		for id := range int64(60) {
			table.decide([]ask{a}, id+1)
		}
		total := 0
		if i%500 == 0 {
			for _, s := range table.keys {
				total += len(s.log.entries)
			}
			if total != table.entries {
				t.Fatalf("%d entries are counted as %d", total, table.entries)
			}
		}
		if len(table.keys) > 100 || table.entries > 20*100+60 {
			t.Fatalf("%d keys, %d entries", len(table.keys), table.entries)
		}
	}
	for i := range 5000 {
		tell(table, askOf(policy, fmt.Sprint("denied", i), 1), verdict{retry: 60_000_000})
		if len(table.keys) > 100 {
			t.Fatalf("%d keys with denials", len(table.keys))
		}
	}
	last := askOf(policy, "denied4999", 1)
	if refusedBy(table, last) == nil {
		t.Error("the latest denial is forgotten")
	}
}

// Keys that are known do not grow past the bound either.
func TestLimitTableIsBoundedWithoutNewKeys(t *testing.T) {
	policy := models.Policy{Name: "p", Limit: 1000, Window: time.Hour}
	for name, count := range map[string]func(*limitTable, ask, int64){
		"decided here":  func(t *limitTable, a ask, id int64) { t.decide([]ask{a}, id) },
		"told by Redis": func(t *limitTable, a ask, _ int64) { tell(t, a, verdict{passes: true}) },
		"from a block":  func(t *limitTable, a ask, id int64) { t.countUnit(&a, id, t.now()) },
	} {
		table := newLimitTable(0, nil)
		for id := range int64(500) {
			for key := range minKeys {
				count(table, askOf(policy, fmt.Sprint(key), 1), id+1)
				if table.entries > entriesPerKey*minKeys {
					t.Fatalf("%s: %d entries after %d of each key", name, table.entries, id)
				}
			}
		}
	}
}

// The most recent keys are the ones kept, more or less.
func TestLimitTableKeepsTheLatest(t *testing.T) {
	table := newLimitTable(100, nil)
	for i := range 5000 {
		table.decide([]ask{askOf(models.Policy{Name: "p", Limit: 1000, Window: time.Hour}, fmt.Sprint(i), 1)}, 1)
	}
	if table.keys[limitKey{"p", "4999"}] == nil {
		t.Error("the latest key is forgotten")
	}
}

func TestLimitTableForgetsIdleKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newLimitTable(10_000, nil)
		policy := models.Policy{Name: "p", Limit: 10, Window: time.Second}
		for i := range 1000 {
			table.decide([]ask{askOf(policy, fmt.Sprint("old", i), 1)}, 1)
		}
		time.Sleep(2 * time.Second)
		for i := range 500 {
			table.decide([]ask{askOf(policy, fmt.Sprint("new", i), 1)}, 1)
		}
		if n := len(table.keys); n > 600 {
			t.Errorf("%d keys, 500 are in use", n)
		}
		if table.entries > 600 {
			t.Errorf("%d entries", table.entries)
		}
	})
}
