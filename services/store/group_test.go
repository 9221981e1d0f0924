package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// grouping is a SQLite database on fake time, and a group that is held open.
type grouping struct {
	*Store
	t    *testing.T
	path string
}

// inGroups runs a test on fake time, in which only what waits takes time.
func inGroups(t *testing.T, test func(t *testing.T, g grouping)) {
	t.Helper()
	path := newDatabase(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.Context(), Options{URL: path, Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		test(t, grouping{s, t, path})
	})
}

// newDatabase is a SQLite file with the tables and nothing in them.
var newDatabase = servicestest.Copies(func(path string) error {
	s, err := Open(context.Background(), Options{URL: path, Timeout: servicestest.Patience})
	if err != nil {
		return err
	}
	return s.Close()
})

// hold starts a write that changes nothing and lasts until it is let go.
func (g grouping) hold() (letGo func()) {
	held, release := make(chan struct{}), make(chan struct{})
	go func() {
		_ = g.change(context.WithoutCancel(g.t.Context()), func(context.Context, querier) error { // fails with its group
			close(held)
			<-release
			return nil
		})
	}()
	<-held
	return func() { close(release) }
}

// come starts writes, one after the other, while a group is held. They wait in this order.
func (g grouping) come(writes ...func() error) (answers func() []error) {
	var all sync.WaitGroup
	errs := make([]error, len(writes))
	for i, write := range writes {
		all.Go(func() {
			defer func() {
				if cause := recover(); cause != nil {
					errs[i] = fmt.Errorf("panic: %v", cause)
				}
			}()
			errs[i] = write()
		})
		synctest.Wait()
	}
	return func() []error {
		all.Wait()
		return errs
	}
}

// together has the writes done in one group, and returns how they ended.
func (g grouping) together(writes ...func() error) []error {
	letGo := g.hold()
	answers := g.come(writes...)
	letGo()
	return answers()
}

// note is a write that leaves an entry in the log.
func (g grouping) note(name string) func() error {
	return func() error { return g.NoteChange(g.t.Context(), name) }
}

func (g grouping) notes(from, n int) (writes []func() error) {
	for i := range n {
		writes = append(writes, g.note(fmt.Sprint(from+i)))
	}
	return writes
}

// logged are the names of the entries in the log, which must have no gap.
func (g grouping) logged() string {
	g.t.Helper()
	read, err := g.Revocations(g.t.Context(), 0, time.Time{})
	if err != nil {
		g.t.Fatal(err)
	}
	var names []string
	for i, entry := range read.Entries {
		if entry.Seq != int64(i)+1 {
			g.t.Errorf("entry %d of the log has the number %d", i+1, entry.Seq)
		}
		names = append(names, entry.SessionHash)
	}
	if read.Head != int64(len(names)) {
		g.t.Errorf("%d entries, but the head is %d", len(names), read.Head)
	}
	return strings.Join(names, " ")
}

// commits counts the transactions in the journal that changed something: the last page of each says
// how long the database is. There are too few of them here for the journal to begin anew.
func (g grouping) commits() (n int) {
	g.t.Helper()
	journal, err := os.ReadFile(g.path + "-wal")
	if err != nil {
		g.t.Fatal(err)
	}
	const header, pageHeader = 32, 24
	salts, page := string(journal[16:24]), int(binary.BigEndian.Uint32(journal[8:]))
	for at := header; at+pageHeader+page <= len(journal); at += pageHeader + page {
		if string(journal[at+8:at+16]) == salts && binary.BigEndian.Uint32(journal[at+4:]) != 0 {
			n++
		}
	}
	return n
}

func wantAnswers(t *testing.T, got []error, want ...error) {
	t.Helper()
	for i := range want {
		if !errors.Is(got[i], want[i]) {
			t.Errorf("write %d: %v, want %v", i+1, got[i], want[i])
		}
	}
}

func wantAll(t *testing.T, got []error, want error) {
	t.Helper()
	for i, err := range got {
		if !errors.Is(err, want) {
			t.Errorf("write %d: %v, want %v", i+1, err, want)
		}
	}
}

func TestWritesShareACommit(t *testing.T) {
	inGroups(t, func(t *testing.T, g grouping) {
		before := g.commits()
		wantAll(t, g.together(g.notes(1, groupSize-1)...), nil)
		if n := g.commits() - before; n != 1 {
			t.Errorf("%d writes that came together took %d commits", groupSize-1, n)
		}
		for i, name := range strings.Fields(g.logged()) {
			if name != fmt.Sprint(i+1) {
				t.Fatalf("the log has them in the order %s", g.logged())
			}
		}
	})
}

// Nobody waits for others to come.
func TestAWriteAloneIsDoneAtOnce(t *testing.T) {
	inGroups(t, func(t *testing.T, g grouping) {
		began, before := time.Now(), g.commits()
		for i := range 3 {
			if err := g.note(fmt.Sprint(i))(); err != nil {
				t.Fatal(err)
			}
		}
		if n := g.commits() - before; n != 3 || time.Since(began) != 0 {
			t.Errorf("3 writes took %d commits and %v", n, time.Since(began))
		}
	})
}

func TestAGroupIsBounded(t *testing.T) {
	t.Run("by size", func(t *testing.T) {
		inGroups(t, func(t *testing.T, g grouping) {
			before := g.commits()
			wantAll(t, g.together(g.notes(1, 2*groupSize-1)...), nil)
			if n := g.commits() - before; n != 2 {
				t.Errorf("%d commits", n)
			}
		})
	})
	t.Run("by time", func(t *testing.T) {
		inGroups(t, func(t *testing.T, g grouping) {
			before := g.commits()
			slow := func() error {
				return g.transact(t.Context(), func(ctx context.Context, q querier) error {
					time.Sleep(groupTime / 2)
					return g.log(ctx, q, models.Revocation{SessionHash: "slow"})
				})
			}
			wantAll(t, g.together(slow, slow, slow, slow), nil)
			if n := g.commits() - before; n != 2 {
				t.Errorf("%d commits", n)
			}
		})
	})
}

func TestCloseCompletesWhatWasAccepted(t *testing.T) {
	inGroups(t, func(t *testing.T, g grouping) {
		letGo := g.hold()
		accepted := g.come(g.notes(1, 2*groupSize)...)
		closing := g.come(g.Close)
		wantAnswers(t, g.come(g.note("late"))(), errClosed)
		letGo()
		wantAll(t, append(accepted(), closing()...), nil)
		s, err := Open(t.Context(), Options{URL: g.path})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		g.Store = s
		if n := len(strings.Fields(g.logged())); n != 2*groupSize {
			t.Errorf("%d of %d are there", n, 2*groupSize)
		}
	})
}

// An acknowledged write survives a loss of power.
func TestCommitsAreSynced(t *testing.T) {
	inGroups(t, func(t *testing.T, g grouping) {
		err := g.change(t.Context(), func(ctx context.Context, q querier) error {
			var level, mode string
			err := errors.Join(q.QueryRowContext(ctx, `PRAGMA synchronous`).Scan(&level), q.QueryRowContext(ctx, `PRAGMA journal_mode`).Scan(&mode))
			if level != "2" || mode != "wal" { // 2 is FULL
				t.Errorf("synchronous is %s, the journal mode %s", level, mode)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}
