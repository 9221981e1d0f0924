package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// A read at once has no end of its own, and pays with its request's budget like any other. Where
// it would have to wait, or may not begin, it is as any other.
func TestAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pool{timeout: time.Second, turns: semaphore.NewWeighted(1), delay: 500 * time.Millisecond}
		ctx := (&Store{}).WithBudget(t.Context())
		read, done := p.atOnce(ctx)
		if _, limited := read.Deadline(); limited || read.Done() != nil {
			t.Error("a context that ends")
		}
		time.Sleep(300 * time.Millisecond)
		waiting, leave := p.atOnce(ctx) // the turn is taken: it waits as long as it may
		if waiting.Err() == nil {
			t.Error("two turns of one")
		}
		leave()
		done()
		if left := budgetOf(ctx).left(p.timeout); left != 0 {
			t.Errorf("%v are left", left)
		}
		spent, done := p.atOnce(ctx)
		if spent.Err() == nil {
			t.Error("a read without a budget")
		}
		done()
		ended, end := context.WithCancel(t.Context())
		end()
		late, done := p.atOnce(ended)
		if !errors.Is(late.Err(), context.Canceled) {
			t.Errorf("a read for a caller that is gone: %v", late.Err())
		}
		done()
		limited, end := context.WithTimeout(t.Context(), 400*time.Millisecond)
		defer end()
		poor := (&Store{}).WithBudget(t.Context())
		budgetOf(poor).spend(600 * time.Millisecond)
		for what, ctx := range map[string]context.Context{"a deadline": limited, "a budget": poor} {
			read, done := p.atOnce(ctx)
			if deadline, _ := read.Deadline(); time.Until(deadline) != 400*time.Millisecond {
				t.Errorf("a read with %v left of %s has until %v", 400*time.Millisecond, what, deadline)
			}
			done()
		}
		again, done := p.atOnce(t.Context())
		if again.Err() != nil || again.Done() != nil {
			t.Errorf("the turn was not given back: %v", again.Err())
		}
		done()
		p.delay = 0
		remote, done := p.atOnce(t.Context())
		defer done()
		if deadline, _ := remote.Deadline(); time.Until(deadline) != time.Second {
			t.Errorf("PostgreSQL has until %v", deadline)
		}
	})
}

// While another process recovers the journal, reads at once take no longer than what is left of
// their request's timeout.
func TestAtOnceIsDelayed(t *testing.T) {
	t.Parallel()
	const timeout = 4 * time.Second
	path := filepath.Join(t.TempDir(), "test.db")
	s, err := Open(t.Context(), Options{URL: path, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	p, err := s.CreateProcess(t.Context(), "", models.ProcessFields{Title: "one", Status: "draft"})
	if err != nil {
		t.Fatal(err)
	}
	end := beginRecovery(t, path+"-shm")
	ctx := s.WithBudget(t.Context())
	budgetOf(ctx).spend(timeout * 2 / 5)
	began := time.Now()
	for range 3 {
		if _, err := s.Process(ctx, p.ID); !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("read during a recovery: %v", err)
		}
	}
	if took := time.Since(began); took > timeout*3/5+servicestest.Slack(began) {
		t.Errorf("with three fifths of the timeout left it took %v", took)
	}
	if left := budgetOf(ctx).left(timeout); left > 0 {
		t.Errorf("%v of the budget are left", left)
	}
	end()
	if got, err := s.Process(t.Context(), p.ID); err != nil || got.Title != "one" {
		t.Errorf("read afterwards: %q, %v", got.Title, err)
	}
}

// beginRecovery makes the index of the journal look as it does while another process writes it anew,
// until end.
func beginRecovery(t *testing.T, index string) (end func()) {
	t.Helper()
	file, err := os.OpenFile(index, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Linux' locks of one open file, which are to SQLite as those of another process.
	const setOpenFileLock, writeLock, recoverLock, header = 37, 120, 122, 2 * 48
	for _, at := range []int64{writeLock, recoverLock} {
		lock := syscall.Flock_t{Type: syscall.F_WRLCK, Start: at, Len: 1}
		if err := syscall.FcntlFlock(file.Fd(), setOpenFileLock, &lock); err != nil {
			t.Fatal(err)
		}
	}
	was, broken := make([]byte, header), make([]byte, header)
	_, read := file.ReadAt(was, 0)
	broken[0] = 1
	_, wrote := file.WriteAt(broken, 0)
	if err := errors.Join(read, wrote); err != nil {
		t.Fatal(err)
	}
	return func() {
		_, wrote := file.WriteAt(was, 0)
		if err := errors.Join(wrote, file.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
