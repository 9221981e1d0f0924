package lock

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"gatehouse/services/fence"
)

// guarded is a database of an application that admits writes by their fences.
type guarded struct {
	db    *sql.DB
	guard fence.Guard
}

func openGuarded(t *testing.T) guarded {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "guarded.db")+"?_busy_timeout=20000&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	g := guarded{db: db}
	for _, statement := range []string{g.guard.Schema(), `CREATE TABLE note (fence BIGINT)`, `INSERT INTO note VALUES (0)`} {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// write notes the fence it was written under; it does not end with the holder's
// context.
func (g guarded) write(resource string, fence *int64) error {
	ctx := context.Background()
	tx, err := g.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := g.guard.Admit(ctx, tx, resource, fence); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE note SET fence = $1`, *fence); err != nil {
		return err
	}
	return tx.Commit()
}

// writtenBy is the fence of the last write.
func (g guarded) writtenBy(t *testing.T) (fence int64) {
	t.Helper()
	if err := g.db.QueryRowContext(t.Context(), `SELECT fence FROM note`).Scan(&fence); err != nil {
		t.Fatal(err)
	}
	return fence
}
