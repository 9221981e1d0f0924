// Package bench compares gatehouse side by side with what else is there. Only
// ratios travel: all contenders of a comparison take turns in one run.
package bench

import (
	"cmp"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	rounds    = 20
	turn      = 150 * time.Millisecond
	workers   = 64
	keyNumber = 1000
)

// table collects the rows that are printed when all has run.
var table struct {
	sync.Mutex
	rows []row
}

type row struct{ what, measured, goal, verdict string }

func TestMain(m *testing.M) {
	code := m.Run()
	if len(table.rows) > 0 {
		fmt.Printf("\n%-58s %-34s %-14s\n", "comparison", "measured", "goal")
		for _, r := range table.rows {
			fmt.Printf("%-58s %-34s %-14s %s\n", r.what, r.measured, r.goal, r.verdict)
		}
	}
	os.Exit(code)
}

// tell adds a row. met says whether the goal is; goal "" is none. A goal missed
// is told, not a failure: machines differ and other work disturbs.
func tell(what, measured, goal string, met bool) {
	verdict := ""
	switch {
	case goal == "":
	case met:
		verdict = "met"
	default:
		verdict = "MISSED"
	}
	table.Lock()
	defer table.Unlock()
	table.rows = append(table.rows, row{what, measured, goal, verdict})
}

// tellRatio compares two of the contenders that ran together; atLeast 0 is no goal.
func tellRatio(what string, speed map[string]float64, ours, theirs string, atLeast float64) {
	ratio := speed[ours] / speed[theirs]
	goal := ""
	if atLeast > 0 {
		goal = fmt.Sprintf(">= %.2f x", atLeast)
	}
	tell(what, fmt.Sprintf("%.2f x (%.0f / %.0f per s)", ratio, speed[ours], speed[theirs]), goal, ratio >= atLeast)
}

// contender does one piece of work, the i-th of all.
type contender struct {
	name string
	work func(i int64) error
}

// race lets the contenders take turns, each with so many workers, and returns
// the median speed of each in operations per second.
func race(t *testing.T, workers int, contenders ...contender) map[string]float64 {
	t.Helper()
	speeds := map[string][]float64{}
	for round := range rounds + 1 {
		for _, c := range contenders {
			speed := run(t, workers, c)
			if round > 0 { // the first warms up
				speeds[c.name] = append(speeds[c.name], speed)
			}
		}
	}
	medians := map[string]float64{}
	for name, all := range speeds {
		slices.SortFunc(all, cmp.Compare[float64])
		medians[name] = all[len(all)/2]
		t.Logf("%-32s %10.0f per s, %.0f to %.0f", name, medians[name], all[0], all[len(all)-1])
	}
	return medians
}

func run(t *testing.T, workers int, c contender) float64 {
	t.Helper()
	var next, done atomic.Int64
	var over atomic.Bool
	var wg sync.WaitGroup
	start := time.Now()
	timer := time.AfterFunc(turn, func() { over.Store(true) })
	defer timer.Stop()
	for range workers {
		wg.Go(func() {
			n := int64(0)
			for !over.Load() {
				if err := c.work(next.Add(1)); err != nil {
					t.Errorf("%s: %v", c.name, err)
					return
				}
				n++
				if n%16 == 0 { // as a server does when it waits for requests; else who reads from Redis gets no turn
					runtime.Gosched()
				}
			}
			done.Add(n)
		})
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(start).Seconds()
}
