package store

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"gatehouse/models"
)

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
