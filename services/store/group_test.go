package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"gatehouse/models"
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
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "test.db")
		s, err := Open(t.Context(), Options{URL: path, Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		test(t, grouping{s, t, path})
	})
}

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

func TestOneOfAGroupFails(t *testing.T) {
	errOwn := errors.New("its own")
	for name, row := range map[string]struct {
		fail func(ctx context.Context, q querier) error // after it has written
		want string
	}{
		"with an answer": {func(context.Context, querier) error { return models.ErrStale }, models.ErrStale.Error()},
		"with an error":  {func(context.Context, querier) error { return errOwn }, errOwn.Error()},
		"in a statement": {func(ctx context.Context, q querier) error {
			_, err := q.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES (NULL, NULL)`)
			return err
		}, "NOT NULL"},
		"in a statement that is none": {func(ctx context.Context, q querier) error {
			_, err := q.ExecContext(ctx, `NONSENSE`)
			return err
		}, "syntax error"},
		"with a panic": {func(context.Context, querier) error { panic(errOwn) }, "panic: its own"},
	} {
		t.Run(name, func(t *testing.T) {
			inGroups(t, func(t *testing.T, g grouping) {
				failing := func() error {
					return g.transact(t.Context(), func(ctx context.Context, q querier) error {
						if err := g.log(ctx, q, models.Revocation{SessionHash: "failed"}); err != nil {
							return err
						}
						return row.fail(ctx, q)
					})
				}
				before := g.commits()
				answers := g.together(g.note("1"), failing, g.note("2"), failing, g.note("3"))
				wantAnswers(t, []error{answers[0], answers[2], answers[4]}, nil, nil, nil)
				if n := g.commits() - before; n != 1 {
					t.Errorf("%d commits", n)
				}
				for _, err := range []error{answers[1], answers[3], g.come(failing)()[0]} { // the last leads
					if err == nil || !strings.Contains(err.Error(), row.want) {
						t.Errorf("the one that fails: %v", err)
					}
				}
				if err := g.note("4")(); err != nil {
					t.Error(err)
				}
				if log := g.logged(); log != "1 2 3 4" {
					t.Errorf("the log has %s", log)
				}
			})
		})
	}
}

// The stack is that of the panic: another goroutine may have run the write.
func TestPanicTellsWhereItWas(t *testing.T) {
	inGroups(t, func(t *testing.T, g grouping) {
		err := g.together(func() error { return g.change(t.Context(), panicsHere) })[0]
		if err == nil || !strings.Contains(err.Error(), "panicsHere") {
			t.Errorf("%v", err)
		}
	})
}

func panicsHere(context.Context, querier) error { panic("here") }

func TestCallersThatGiveUp(t *testing.T) {
	t.Run("in line: it is not written", func(t *testing.T) {
		inGroups(t, func(t *testing.T, g grouping) {
			impatient, leave := context.WithCancel(t.Context())
			letGo := g.hold()
			gone := g.come(func() error { return g.NoteChange(impatient, "gone") })
			others := g.come(g.note("1"), g.note("2"))
			leave()
			wantAnswers(t, gone(), context.Canceled) // while the others still wait
			letGo()
			wantAll(t, others(), nil)
			if log := g.logged(); log != "1 2" {
				t.Errorf("the log has %s", log)
			}
		})
	})
	t.Run("just before its write would begin: it is not written", func(t *testing.T) {
		inGroups(t, func(t *testing.T, g grouping) {
			impatient, leave := context.WithCancel(t.Context())
			answers := g.together(
				func() error {
					return g.change(t.Context(), func(context.Context, querier) error { leave(); return nil })
				},
				func() error { return g.NoteChange(impatient, "gone") },
				g.note("1"),
			)
			wantAnswers(t, answers, nil, context.Canceled, nil)
			if log := g.logged(); log != "1" {
				t.Errorf("the log has %s", log)
			}
		})
	})
	for name, writes := range map[string]int{"as the leader": 0, "as one of a group": 1} {
		t.Run("while its write runs: it is written, and says so, "+name, func(t *testing.T) {
			inGroups(t, func(t *testing.T, g grouping) {
				impatient, leave := context.WithCancel(t.Context())
				leaves := func() error {
					return g.transact(impatient, func(ctx context.Context, q querier) error {
						leave()
						time.Sleep(time.Millisecond) // until all who can have seen it
						return g.log(ctx, q, models.Revocation{SessionHash: "begun"})
					})
				}
				var answers []error
				if writes == 0 {
					answers = g.come(leaves, g.note("1"))()
				} else {
					answers = g.together(leaves, g.note("1"))
				}
				wantAnswers(t, answers, nil, nil)
				if log := g.logged(); log != "begun 1" {
					t.Errorf("the log has %s", log)
				}
			})
		})
	}
	t.Run("of all that wait for another process: the next leads", func(t *testing.T) {
		inGroups(t, func(t *testing.T, g grouping) {
			other := g.otherProcess()
			impatient, leave := context.WithCancel(t.Context())
			first := g.come(func() error { return g.NoteChange(impatient, "gone") })
			others := g.come(g.note("1"), g.note("2"))
			leave()
			wantAnswers(t, first(), context.Canceled)
			other()
			wantAll(t, others(), nil)
			if log := g.logged(); log != "1 2" {
				t.Errorf("the log has %s", log)
			}
		})
	})
	// As in a pool: who is late would not be served in time.
	t.Run("by itself, while there is still time", func(t *testing.T) {
		inGroups(t, func(t *testing.T, g grouping) {
			letGo := g.hold()
			began := time.Now()
			wantAnswers(t, g.come(g.note("late"))(), context.DeadlineExceeded)
			if waited := time.Since(began); waited != 750*time.Millisecond {
				t.Errorf("it waited %v", waited)
			}
			letGo()
			if log := g.logged(); log != "" {
				t.Errorf("the log has %s", log)
			}
		})
	})
}

// otherProcess is one that writes until it is told to end.
func (g grouping) otherProcess() (end func()) {
	raw, err := sql.Open("sqlite", "file:"+g.path+"?_txlock=immediate")
	if err != nil {
		g.t.Fatal(err)
	}
	tx, err := raw.BeginTx(g.t.Context(), nil)
	if err != nil {
		g.t.Fatal(err)
	}
	return func() {
		if err := errors.Join(tx.Rollback(), raw.Close()); err != nil {
			g.t.Error(err)
		}
	}
}

// What the others read in the group may never have been: they do not get their answers either.
func TestACommitFails(t *testing.T) {
	inGroups(t, func(t *testing.T, g grouping) {
		p, err := g.CreateProcess(t.Context(), "", models.ProcessFields{Title: "before"})
		if err != nil {
			t.Fatal(err)
		}
		edit := func() error {
			got, err := g.UpdateProcess(t.Context(), p.ID, "", models.ProcessFields{Title: "lost"}, models.WriteGuard{GrantedVersion: 1})
			if err != nil && got != (models.Process{}) {
				t.Errorf("a write that fails returns %+v", got)
			}
			return err
		}
		// SQLite looks at these references at the commit.
		wrong := func() error {
			return g.change(t.Context(), func(ctx context.Context, q querier) error {
				_, err := q.ExecContext(ctx, `PRAGMA defer_foreign_keys = 1`)
				if err == nil {
					err = insertSession(ctx, q, new(int64(99)), models.Session{Hash: "x", Data: []byte{}})
				}
				return failed("write", err)
			})
		}
		answers := g.together(g.note("lost"), edit, edit, wrong, g.note("lost, too"))
		for i, err := range answers {
			var conflict *models.ConflictError
			if sqliteCode(err) != sqlite3.SQLITE_CONSTRAINT || errors.As(err, &conflict) {
				t.Errorf("write %d: %v", i+1, err)
			}
		}
		if log := g.logged(); log != "" {
			t.Errorf("the log has %s", log)
		}
		wantAnswers(t, g.together(edit, g.note("after")), nil, nil)
	})
}

// SQLite rolls everything back when there is no room. Who had not begun is not affected.
func TestATransactionThatSQLiteEnds(t *testing.T) {
	inGroups(t, func(t *testing.T, g grouping) {
		full := func() error {
			return g.change(t.Context(), func(ctx context.Context, q querier) error {
				if _, err := q.ExecContext(ctx, `PRAGMA max_page_count = 1`); err != nil { // as many as there are
					return err
				}
				_, err := q.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES ('long', $1)`, strings.Repeat("x", 100_000))
				_, again := q.ExecContext(ctx, `PRAGMA max_page_count = 1000000`)
				return errors.Join(err, again)
			})
		}
		answers := g.together(g.note("lost"), full, g.note("1"), g.note("2"))
		if refusal(answers[1]) != noRoom {
			t.Errorf("the one for which there is no room: %v", answers[1])
		}
		if err := answers[0]; !errors.Is(err, models.ErrUnavailable) || !strings.Contains(err.Error(), "rolled back") {
			t.Errorf("the one before it: %v", err)
		}
		wantAll(t, answers[2:], nil)
		if log := g.logged(); log != "1 2" {
			t.Errorf("the log has %s", log)
		}
	})
}

// None is acknowledged that a start would not find.
func TestTheFileGoesInAGroup(t *testing.T) {
	inGroups(t, func(t *testing.T, g grouping) {
		moves := func() error {
			return g.change(t.Context(), func(context.Context, querier) error { return os.Rename(g.path, g.path+".moved") })
		}
		wantAll(t, g.together(g.note("1"), moves, g.note("2")), models.ErrNotWritable)
		if err := os.Rename(g.path+".moved", g.path); err != nil {
			t.Fatal(err)
		}
		wantAnswers(t, g.together(g.note("3")), nil)
	})
}

// Also then nobody is kept waiting.
func TestALeaderThatEnds(t *testing.T) {
	inGroups(t, func(t *testing.T, g grouping) {
		ends := func() error {
			return g.change(t.Context(), func(context.Context, querier) error {
				runtime.Goexit() // as a test does that fails
				return nil
			})
		}
		wantAnswers(t, g.together(g.note("lost"), ends, g.note("1")), errAbandoned, errAbandoned, nil)
		if log := g.logged(); log != "1" {
			t.Errorf("the log has %s", log)
		}
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
