package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// What the hot routes ask is prepared when it is asked the first time, and never again.
func TestStatementsArePreparedOnce(t *testing.T) {
	for name, row := range map[string]struct {
		url      func(t *testing.T) string
		prepared func(t *testing.T, s *Store) []string // on the connection that reads and the one that writes
	}{
		"sqlite":   {func(t *testing.T) string { return filepath.Join(t.TempDir(), "test.db") }, preparedInSQLite},
		"postgres": {func(t *testing.T) string { return servicestest.StartPostgres(t) }, preparedInPostgres},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Open(t.Context(), Options{URL: row.url(t), Timeout: servicestest.Patience, MaxConns: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			askHot(t, s, "first")
			before := row.prepared(t, s)
			askHot(t, s, "second")
			if after := row.prepared(t, s); !slices.Equal(before, after) || len(before) == 0 {
				t.Errorf("prepared at first:\n%q\nand then:\n%q", before, after)
			}
		})
	}
}

// askHot does once what the hot routes do: sign in, be signed in, read, write and delete a process.
func askHot(t *testing.T, s *Store, round string) {
	t.Helper()
	ctx, now := t.Context(), time.Now().UTC()
	fields := models.ProcessFields{Title: round, Status: "draft"}
	user, err := s.CreateUser(ctx, round+"@example.com", "x", []string{models.RoleEditor})
	if err != nil {
		t.Fatal(err)
	}
	_, inserted := s.InsertSession(ctx, models.Session{
		Hash: round, ID: "id of " + round, User: models.UserRef{ID: user.ID}, Epoch: 1,
		CreatedAt: now, LastSeen: now, IdleAt: now.Add(time.Hour), ExpiresAt: now.Add(time.Hour),
	}, 3)
	_, live := s.Session(ctx, round, now)
	_, log := s.Revocations(ctx, 0, time.Time{})
	p, created := s.CreateProcess(ctx, user.ID, fields)
	_, read := s.Process(ctx, p.ID)
	_, listed := s.Processes(ctx, models.ProcessFilter{}, models.Page{})
	_, updated := s.UpdateProcess(ctx, p.ID, user.ID, fields, models.WriteGuard{GrantedVersion: 1})
	_, refused := s.UpdateProcess(ctx, p.ID, user.ID, fields, models.WriteGuard{GrantedVersion: 1})
	_, drafted := s.SaveDraft(ctx, p.ID, user.ID, models.Draft{Title: round, Status: "draft", BaseVersion: 1}, time.Time{})
	_, _, shown := s.ProcessWithDrafts(ctx, p.ID)
	if !errors.Is(refused, models.ErrVersionConflict) {
		t.Errorf("a write of an old version: %v", refused)
	}
	if err := errors.Join(inserted, live, log, created, read, listed, updated, drafted, shown, s.DeleteProcess(ctx, p.ID, user.ID, models.WriteGuard{GrantedVersion: 2})); err != nil {
		t.Fatal(err)
	}
}

// preparedInSQLite are the statements that the connections keep, as they are in memory: one that is
// prepared again is another.
func preparedInSQLite(t *testing.T, s *Store) (all []string) {
	t.Helper()
	for _, db := range []*sql.DB{s.read.DB, s.write.(*group).db, s.logReader.DB} {
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.Raw(func(conn any) error {
			for text, kept := range conn.(*preparingConn).kept {
				all = append(all, fmt.Sprintf("%p %s", kept, text))
			}
			return nil
		})
	}
	slices.Sort(all)
	return all
}

// preparedInPostgres are the statements that the server knows, and when they were prepared.
func preparedInPostgres(t *testing.T, s *Store) (all []string) {
	t.Helper()
	for _, p := range []*pool{s.read, s.logReader} {
		some, err := collect(t.Context(), p, func(row scanner) (text string, err error) {
			err = row.Scan(&text)
			return text, err
		}, `SELECT prepare_time || statement FROM pg_prepared_statements WHERE statement NOT LIKE '%pg_prepared%' ORDER BY 1`)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, some...)
	}
	return all
}

// fakeConn is a connection of the driver that notes what is prepared and closed.
type fakeConn struct {
	sqliteConn
	prepared, closed int
	direct           int // queries that were not prepared
}

func (c *fakeConn) PrepareContext(context.Context, string) (driver.Stmt, error) {
	c.prepared++
	return &fakeStmt{conn: c}, nil
}

func (c *fakeConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	c.direct++
	return fakeRows{}, nil
}

func (c *fakeConn) Close() error { return nil }

type fakeStmt struct {
	driver.Stmt
	conn *fakeConn
}

func (s *fakeStmt) QueryContext(context.Context, []driver.NamedValue) (driver.Rows, error) {
	return fakeRows{}, nil
}

func (s *fakeStmt) Close() error {
	s.conn.closed++
	return nil
}

type fakeRows struct{ driver.Rows }

func (fakeRows) Close() error { return nil }

func TestKeptStatements(t *testing.T) {
	t.Parallel()
	ask := func(t *testing.T, c driver.Conn, text string) driver.Rows {
		t.Helper()
		rows, err := c.(driver.QueryerContext).QueryContext(t.Context(), text, nil)
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	t.Run("a statement whose rows are being read is not used by a second query", func(t *testing.T) {
		fake := &fakeConn{}
		conn := prepareOnce(fake)
		first := ask(t, conn, "q")
		second := ask(t, conn, "q")
		if fake.prepared != 1 || fake.direct != 1 {
			t.Errorf("%d prepared, %d direct", fake.prepared, fake.direct)
		}
		_, _ = second.Close(), first.Close()
		_ = ask(t, conn, "q").Close()
		if fake.prepared != 1 || fake.direct != 1 {
			t.Errorf("when its rows are closed: %d prepared, %d direct", fake.prepared, fake.direct)
		}
	})
	t.Run("so many are kept, and no more", func(t *testing.T) {
		fake := &fakeConn{}
		conn := prepareOnce(fake)
		reading := ask(t, conn, "in use")
		for i := range 3 * keptStatements {
			_ = ask(t, conn, fmt.Sprint(i)).Close()
		}
		kept := conn.(*preparingConn).kept
		if len(kept) != keptStatements || fake.prepared-fake.closed != keptStatements {
			t.Errorf("%d kept, %d prepared, %d closed", len(kept), fake.prepared, fake.closed)
		}
		if kept["in use"] == nil {
			t.Errorf("the one in use went: %q", slices.Sorted(maps.Keys(kept)))
		}
		_, _ = reading.Close(), conn.Close()
		if fake.prepared != fake.closed {
			t.Errorf("after the connection's end: %d prepared, %d closed", fake.prepared, fake.closed)
		}
	})
}
