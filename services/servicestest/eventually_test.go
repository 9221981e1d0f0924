package servicestest

import (
	"fmt"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// failure is a test that may fail without failing this one.
type failure struct {
	testing.TB
	msg string
}

func (f *failure) Helper() {}

func (f *failure) Fatalf(format string, args ...any) {
	f.msg = fmt.Sprintf(format, args...)
	panic(f)
}

// run returns what f failed with, "" if it passed.
func run(do func(t testing.TB)) (msg string) {
	f := &failure{}
	defer func() {
		msg = f.msg
		if r := recover(); r != nil && r != any(f) {
			panic(r)
		}
	}()
	do(f)
	return ""
}

func TestWithin(t *testing.T) {
	t.Run("a promise that is kept passes", func(t *testing.T) {
		calls := 0
		if msg := run(func(t testing.TB) { Within(t, time.Minute, func() bool { calls++; return calls == 3 }, "never") }); msg != "" {
			t.Error(msg)
		}
	})
	t.Run("a promise that is broken fails", func(t *testing.T) {
		if msg := run(func(t testing.TB) { Within(t, time.Millisecond, func() bool { return false }, "never") }); msg == "" {
			t.Error("it passed")
		}
	})
	t.Run("true, but too late, fails", func(t *testing.T) {
		synctest.Test(t, func(*testing.T) {
			slow := func() bool { time.Sleep(time.Hour); return true }
			if msg := run(func(t testing.TB) { Within(t, time.Second, slow, "never") }); msg == "" {
				t.Error("it passed")
			}
		})
	})
}

func TestBy(t *testing.T) {
	asks := func(kept func() bool, since time.Duration) string {
		return run(func(t testing.TB) { By(t, time.Now().Add(-since), time.Minute, kept, "never") })
	}
	t.Run("kept, and asked late, passes", func(t *testing.T) {
		if msg := asks(func() bool { return true }, time.Hour); msg != "" {
			t.Error(msg)
		}
	})
	t.Run("not kept, and asked late, fails", func(t *testing.T) {
		if msg := asks(func() bool { return false }, time.Hour); msg == "" {
			t.Error("it passed")
		}
	})
	t.Run("what is kept meanwhile passes", func(t *testing.T) {
		calls := 0
		if msg := asks(func() bool { calls++; return calls == 3 }, 0); msg != "" {
			t.Error(msg)
		}
	})
}

func TestSlack(t *testing.T) {
	began := time.Now()
	for _, row := range []struct {
		name  string
		late  map[int]time.Duration // by the second
		since time.Duration
		want  time.Duration
	}{
		{"nothing was late", nil, 0, 0},
		{"the latest since then counts", map[int]time.Duration{3: 7 * time.Millisecond, 8: 5 * time.Millisecond}, 0, 350 * time.Millisecond},
		{"what was before does not", map[int]time.Duration{3: 7 * time.Millisecond, 8: 5 * time.Millisecond}, 4 * time.Second, 250 * time.Millisecond},
		{"a lateness of 1 s gives the most, 20 s", map[int]time.Duration{3: time.Second}, 0, 20 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLateness(50, lateSleep)
			l.began = began.Add(-10 * time.Second)
			for second, late := range row.late {
				l.slot(second).Store(int64(late))
			}
			if got := l.slack(l.began.Add(row.since)); got != row.want {
				t.Errorf("%v, want %v", got, row.want)
			}
		})
	}
}

func TestSlackOfAStepThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLateness(4, 0)
		began := time.Now()
		l.underway.Store(&began)
		time.Sleep(time.Second)
		if got := l.slack(began); got != 4*time.Second {
			t.Errorf("%v", got)
		}
	})
}

func TestLateness(t *testing.T) {
	const ms = time.Millisecond
	l := newLateness(50, 5*ms)
	l.slot(2).Store(int64(time.Hour)) // of 1024 s before
	for _, sleep := range [][2]time.Duration{
		{100 * ms, 105 * ms}, {300 * ms, 312 * ms}, {400 * ms, 408 * ms}, // the latest of a second stays
		{1500 * ms, 3500 * ms}, // two seconds begin in it
		{3600 * ms, 3605 * ms}, // not late
		{3998 * ms, 4004 * ms}, // the next second begins
		{4500 * ms, 4505 * ms},
	} {
		l.note(l.began.Add(sleep[0]), l.began.Add(sleep[1]))
	}
	for second, want := range []time.Duration{7 * ms, 0, 1995 * ms, 1995 * ms, 1 * ms, 0} {
		if got := time.Duration(l.slot(second).Load()); got != want {
			t.Errorf("second %d: %v late, want %v", second, got, want)
		}
	}
}

func TestProcess(t *testing.T) {
	t.Run("it is asked to end", asksToEnd)
	t.Run("a child that keeps its output open does not keep it from ending", func(t *testing.T) {
		cmd := exec.Command("sh", "-c", `sleep 1000 & echo "child $!"`)
		cmd.WaitDelay = time.Millisecond
		p := Start(t, cmd)
		Eventually(t, func() bool { return len(p.Lines("child ")) == 1 }, "it says nothing")
		child, err := strconv.Atoi(p.Lines("child ")[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(child, syscall.SIGKILL) })
		Eventually(t, p.HasEnded, "it has not ended")
	})
}

func asksToEnd(t *testing.T) {
	p := Start(t, exec.Command("sh", "-c", `trap 'echo "said bye"; exit 7' TERM; echo "said hello"; while :; do sleep 0.01; done`))
	Eventually(t, func() bool { return len(p.Lines("said ")) == 1 }, "it says nothing")
	p.Terminate()
	if code, said := p.ExitCode(), p.Lines("said "); code != 7 || len(said) != 2 || said[1] != "bye" {
		t.Errorf("it ended with %d and said %q", code, said)
	}
}
