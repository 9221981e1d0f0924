package fence_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"

	"gatehouse/models"
	"gatehouse/services/fence"
	"gatehouse/services/servicestest"
)

// must returns the value of a call that has to work.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// guarded is an application's own database: a journal of the writes to resources,
// in the order in which they took effect.
type guarded struct {
	*sql.DB
	guard fence.Guard
}

func openGuarded(t *testing.T, url string, guard fence.Guard) *guarded {
	t.Helper()
	driver := "pgx"
	if !strings.Contains(url, "://") {
		driver, url = "sqlite", "file:"+url+"?_busy_timeout=20000&_txlock=immediate"
	}
	db := must(sql.Open(driver, url))
	t.Cleanup(func() { check(t, db.Close()) })
	for _, statement := range []string{guard.Schema(), guard.Schema(), `DROP TABLE IF EXISTS journal`, `CREATE TABLE journal (resource TEXT, place BIGINT, fence BIGINT)`} {
		must(db.ExecContext(t.Context(), statement))
	}
	return &guarded{db, guard}
}

func (g *guarded) write(ctx context.Context, resource string, fence *int64) error {
	tx, err := g.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := g.guard.Admit(ctx, tx, resource, fence); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO journal SELECT $1, COUNT(*), $2 FROM journal WHERE resource = $1`, resource, *fence); err != nil {
		return err
	}
	return tx.Commit()
}

// written are the fences that wrote, in order.
func (g *guarded) written(t *testing.T, resource string) []int64 {
	t.Helper()
	rows := must(g.QueryContext(t.Context(), `SELECT fence FROM journal WHERE resource = $1 ORDER BY place`, resource))
	defer rows.Close()
	var all []int64
	for rows.Next() {
		var fence int64
		check(t, rows.Scan(&fence))
		all = append(all, fence)
	}
	check(t, rows.Err())
	return all
}

func TestGuard(t *testing.T) {
	t.Parallel()
	for database, urlOf := range map[string]func(*testing.T) string{
		"SQLite":     func(t *testing.T) string { return filepath.Join(t.TempDir(), "test.db") },
		"PostgreSQL": func(t *testing.T) string { return servicestest.StartPostgres(t) },
	} {
		t.Run(database, func(t *testing.T) {
			url := urlOf(t)
			for _, table := range []string{"", "fences of this \"app\""} {
				t.Run("refuses a lower fence than has written, in table "+table, func(t *testing.T) { refusesLower(t, openGuarded(t, url, fence.Guard{Table: table})) })
			}
			g := openGuarded(t, url, fence.Guard{})
			t.Run("many writers at once", func(t *testing.T) { race(t, g) })
			t.Run("a fence that was rolled back refuses none", func(t *testing.T) {
				tx := must(g.BeginTx(t.Context(), nil))
				check(t, g.guard.Admit(t.Context(), tx, "rolled back", new(int64(5))))
				check(t, tx.Rollback())
				check(t, g.write(t.Context(), "rolled back", new(int64(1))))
			})
			t.Run("without its table the database could not say", func(t *testing.T) {
				must(g.ExecContext(t.Context(), `DROP TABLE lock_fences`))
				if err := g.write(t.Context(), "a", new(int64(1))); !errors.Is(err, models.ErrUnavailable) || errors.Is(err, models.ErrNotHeld) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

func refusesLower(t *testing.T, g *guarded) {
	for _, row := range []struct {
		resource string
		fence    int64
		want     error
	}{
		{"a", 1_700_000_000_000_000, nil},
		{"a", 1_700_000_000_000_000, nil}, // the same holder again
		{"a", 1_700_000_000_000_001, nil},
		{"a", 1_700_000_000_000_000, models.ErrNotHeld},
		{"b", 7, nil}, // each resource has its own
		{"b", -1, models.ErrNotHeld},
		{"a", 1_700_000_000_000_001, nil}, // what was refused changed nothing
	} {
		if err := g.write(t.Context(), row.resource, &row.fence); !errors.Is(err, row.want) {
			t.Errorf("%s under %d: %v, want %v", row.resource, row.fence, err, row.want)
		}
	}
	if got, want := fmt.Sprint(g.written(t, "a"), g.written(t, "b")), "[1700000000000000 1700000000000000 1700000000000001 1700000000000001] [7]"; got != want {
		t.Errorf("wrote %s, want %s", got, want)
	}
	if err := g.write(t.Context(), "a", nil); !errors.Is(err, models.ErrUnavailable) {
		t.Errorf("without a fence: %v", err)
	}
}

// race lets holders of growing fences write when they get to it, many at once. No fence writes
// after a higher one.
func race(t *testing.T, g *guarded) {
	const holders, grants = 8, 15
	var fences, refused atomic.Int64
	var wg sync.WaitGroup
	for range holders {
		wg.Go(func() {
			for range grants {
				fence := fences.Add(1)
				time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond) // the pause that a lock cannot see
				switch err := g.write(t.Context(), "race", &fence); {
				case errors.Is(err, models.ErrNotHeld):
					refused.Add(1)
				case err != nil:
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	written := g.written(t, "race")
	if !slices.IsSorted(written) || len(slices.Compact(slices.Clone(written))) != len(written) {
		t.Errorf("a fence wrote after a higher one: %v", written)
	}
	if len(written)+int(refused.Load()) != holders*grants || written[len(written)-1] != holders*grants {
		t.Errorf("%d wrote, the last is %d; %d were refused", len(written), written[len(written)-1], refused.Load())
	}
}

// A lower fence that comes while a higher one has not committed yet waits, and is decided by how
// that ends. On SQLite there is one writer at a time anyway.
func TestGuardWaitsForTheOther(t *testing.T) {
	t.Parallel()
	g := openGuarded(t, servicestest.StartPostgres(t), fence.Guard{})
	for _, row := range []struct {
		resource string
		end      func(*sql.Tx) error
		want     error
	}{
		{"committed", (*sql.Tx).Commit, models.ErrNotHeld},
		{"rolled back", (*sql.Tx).Rollback, nil},
	} {
		first := must(g.BeginTx(t.Context(), nil))
		defer first.Rollback()
		check(t, g.guard.Admit(t.Context(), first, row.resource, new(int64(7))))
		second := make(chan error, 1)
		go func() { second <- g.write(t.Context(), row.resource, new(int64(5))) }()
		servicestest.Eventually(t, func() bool {
			var waiting bool
			err := g.QueryRowContext(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_stat_activity
				WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waiting)
			return err == nil && waiting
		}, "the second does not wait")
		check(t, row.end(first))
		if err := <-second; !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.resource, err, row.want)
		}
	}
}
