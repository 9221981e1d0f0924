package servicestest

import (
	"fmt"
	"os/exec"
	"testing"
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
}

func TestSlack(t *testing.T) {
	began := time.Now()
	l := &lateness{began: began.Add(-10 * time.Second)}
	l.slot(3).Store(int64(7 * time.Millisecond))
	l.slot(8).Store(int64(5 * time.Millisecond))
	for _, row := range []struct {
		name  string
		since time.Duration
		want  time.Duration
	}{
		{"the latest since then counts", 0, 7 * time.Millisecond},
		{"what was before does not", 4 * time.Second, 5 * time.Millisecond},
		{"nothing was late", 9 * time.Second, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := l.latest(l.began.Add(row.since)); got != row.want {
				t.Errorf("%v, want %v", got, row.want)
			}
		})
	}
}

func TestProcess(t *testing.T) {
	p := Start(t, exec.Command("sh", "-c", `trap 'echo "said bye"; exit 7' TERM; echo "said hello"; while :; do sleep 0.01; done`))
	Eventually(t, func() bool { return len(p.Lines("said ")) == 1 }, "it says nothing")
	p.Terminate()
	if code, said := p.ExitCode(), p.Lines("said "); code != 7 || len(said) != 2 || said[1] != "bye" {
		t.Errorf("it ended with %d and said %q", code, said)
	}
}
