package servicestest

import (
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Patience ends a wait for what does not come. It is no promise of gatehouse's: a test that waits
// longer hangs. Clients that need a time limit have this one.
const Patience = 2 * time.Minute

// Eventually waits until ok is true, and fails the test with msg if it never is.
func Eventually(t testing.TB, ok func() bool, msg string) {
	t.Helper()
	began := time.Now()
	for !ok() {
		waited := time.Since(began)
		if waited > Patience {
			t.Fatalf("%s (waited %v)", msg, Patience)
		}
		time.Sleep(pause(waited))
	}
}

// pause is how long a wait that has lasted so long leaves what it waits for alone: to ask costs
// the processors that what is waited for needs.
func pause(waited time.Duration) time.Duration {
	return min(max(waited/8, time.Millisecond), 50*time.Millisecond)
}

// Within waits until ok is true, and fails the test with msg if that takes longer than bound, which
// is what gatehouse promises. The time that ok takes counts. What the machine was late meanwhile
// comes on top: see Slack.
func Within(t testing.TB, bound time.Duration, ok func() bool, msg string) {
	t.Helper()
	began := time.Now()
	for {
		kept := ok()
		took := time.Since(began)
		if took > bound+Slack(began) { // what is true too late is broken, too
			t.Fatalf("%s (waited %v, promised is %v)", msg, took, bound)
		}
		if kept {
			return
		}
		time.Sleep(max(min(pause(took), bound-took), time.Millisecond)) // at the bound it is asked, too
	}
}

// By is Within for a bound that began earlier, at since: what the test did meanwhile may have taken
// longer. It fails the test if ok is asked after the bound, and is not true.
func By(t testing.TB, since time.Time, bound time.Duration, ok func() bool, msg string) {
	t.Helper()
	began := time.Now()
	for asked := began; !ok(); asked = time.Now() {
		if passed := asked.Sub(since); passed > bound+Slack(since) {
			t.Fatalf("%s (after %v, promised is %v)", msg, passed, bound)
		}
		time.Sleep(pause(time.Since(began)))
	}
}

// Slack is what this machine, busy with other work, may have added since then to what a test
// measures. Whatever is promised takes a chain of wake-ups: of goroutines, of Redis, of the
// kernel. Slack allows for 50, each as late as the latest that the harness has seen of its own.
// On a quiet machine that is some 50 ms, beside two busy loops on two processors about a second.
// After MeasureDisk it allows for four writes to the disk besides, each as slow as the slowest of
// the harness' own. It is never more than 40 s.
func Slack(since time.Time) time.Duration { return wakeUps.slack(since) + diskWrites.slack(since) }

// SlackOf is what Slack allows for where a wake-up was at most so late: for the wake-ups of another
// process, which has seen that itself.
func SlackOf(late time.Duration) time.Duration { return wakeUps.allow(late) }

// wakeUps measures for as long as the test binary runs.
var wakeUps = func() *lateness {
	l := newLateness(50, lateSleep)
	go func() {
		for before := l.began; ; {
			time.Sleep(lateSleep)
			now := time.Now()
			l.note(before, now)
			before = now
		}
	}()
	return l
}()

// lateSleep is how long wakeUps means to sleep.
const lateSleep = 5 * time.Millisecond

// diskWrites measures from MeasureDisk on.
var diskWrites = newLateness(4, 0)

// MeasureDisk lets Slack know from now on how slow the disk is, which something else may keep busy,
// too. It is for tests of what has a database.
func MeasureDisk() { measureDisk() }

var measureDisk = sync.OnceFunc(func() {
	file, err := os.CreateTemp("", "slack")
	if err != nil {
		return // then no disk is slow
	}
	_ = os.Remove(file.Name()) // it is there until the test binary ends
	go func() {
		for {
			time.Sleep(100 * time.Millisecond)
			before := time.Now()
			diskWrites.underway.Store(&before)
			_, _ = file.Write(make([]byte, 4096)) // as a database does: what it adds is on the disk at once
			_ = file.Sync()
			diskWrites.note(before, time.Now())
			diskWrites.underway.Store(nil)
		}
	}()
})

// lateness keeps how late steps of the machine ended that the harness takes all the time.
type lateness struct {
	began time.Time
	chain int                // steps that follow each other in what a test measures
	least time.Duration      // what a step takes in any case
	worst [1024]atomic.Int64 // of each second, in turn
	// When the step began that has not ended yet, if that is not when the one before ended.
	underway atomic.Pointer[time.Time]
}

func newLateness(chain int, least time.Duration) *lateness {
	return &lateness{began: time.Now(), chain: chain, least: least}
}

// note keeps how late a step ended.
func (l *lateness) note(before, now time.Time) {
	late := int64(now.Sub(before) - l.least)
	// A second in which the machine ran nothing is as late as the step that spans it.
	last := l.second(now)
	for second := l.second(before) + 1; second <= last; second++ {
		l.slot(second).Store(late)
	}
	if slot := l.slot(last); late > slot.Load() {
		slot.Store(late)
	}
}

func (l *lateness) slack(since time.Time) time.Duration { return l.allow(l.latest(since)) }

func (l *lateness) allow(late time.Duration) time.Duration {
	const most = 20 * time.Second
	return min(time.Duration(l.chain)*late, most)
}

func (l *lateness) second(at time.Time) int { return int(at.Sub(l.began) / time.Second) }

func (l *lateness) slot(second int) *atomic.Int64 { return &l.worst[second%len(l.worst)] }

func (l *lateness) latest(since time.Time) time.Duration {
	now := l.second(time.Now())
	first := max(l.second(since), now-len(l.worst)+1, 0)
	var worst int64
	for second := first; second <= now; second++ {
		worst = max(worst, l.slot(second).Load())
	}
	if began := l.underway.Load(); began != nil {
		worst = max(worst, int64(time.Since(*began)))
	}
	return time.Duration(worst)
}
