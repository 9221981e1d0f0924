package store

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	sqlite3 "modernc.org/sqlite/lib"

	"gatehouse/models"
)

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
