// Package fence lets an application's own database refuse the writes of lock holders that
// come too late. It needs a lock's fence, a number that only grows, and nothing of Redis.
package fence

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"strings"

	"gatehouse/models"
)

// Guard refuses the writes of lock holders that were too late, in any application's own SQLite
// or PostgreSQL database.
//
// A lock alone cannot. Its holder may be paused between looking at the lock and writing, for
// longer than the lease, and then go on while another holder has the lock. But the grants of a
// resource have fences that only grow, and a database that remembers the highest one that
// wrote can refuse all lower ones (Kleppmann, "How to do distributed locking", 2016). It does
// so whatever Redis, the network and the clocks of the holders do. A holder may write as often
// as it likes until a later one has written. That is what is refused, not that a later one has
// the lock.
//
// Gatehouse guards its own processes by their versions instead: they stay editable without
// Redis, where locks have no fences. Where a row has a fence column of its own, "UPDATE ... SET
// fence = $1 WHERE id = $2 AND fence <= $1" does the same without a guard.
//
// The zero value is ready to use, by any number of goroutines.
type Guard struct {
	// Table holds the highest fence that wrote, for each resource; see Schema. A schema may
	// stand before it with a dot. "" is lock_fences. Applications that lock in different
	// Redis servers need tables of their own.
	Table string
}

// Execer is the transaction that writes: *sql.Tx or what wraps one, or a *sql.Conn with a
// transaction begun on it.
type Execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Schema is the statement that creates the table unless it is there, for the application's
// migrations. A row stays for each resource ever written. Delete it only with what it guards,
// and if that name is never used again.
func (g Guard) Schema() string {
	return `CREATE TABLE IF NOT EXISTS ` + g.table() + ` (resource TEXT PRIMARY KEY, fence BIGINT NOT NULL)`
}

// Admit lets a transaction write to what resource names, under the fence of its lock. Call it
// before the transaction's other statements, and commit only if it answers nil. Writers of one
// resource then wait for each other until they commit. What was refused or rolled back leaves
// no trace. Called outside a transaction it protects nothing. A transaction that writes to
// several resources admits them in one order everywhere, or two may wait for each other.
//
// The fence is lock.Lock.Fence, or that of middleware.LockFrom, as granted, not the one that a
// later Extend answers. Where the server forgot the lock, its holder has reasserted it under
// a new fence, and another holder may have written in between.
//
// Errors:
//   - models.ErrNotHeld: a higher fence has written. The lock is lost, nothing was changed.
//   - models.ErrUnavailable, with the driver's error: the database could not say. PostgreSQL's
//     40001, if the isolation is above read committed and another writer was first: try again.
//   - models.ErrUnavailable, when fence is nil, as it is for a lock granted without Redis. Such
//     a lock never gets a fence: give it back and lock again when Redis returns.
//
// Redis takes fences from its clock. After a failover that lost the fences, to a server whose
// clock is behind, new holders are refused for as long as it is behind. Keep the clocks of
// Redis servers together.
func (g Guard) Admit(ctx context.Context, tx Execer, resource string, fence *int64) error {
	op := "admit a write to " + resource
	if fence == nil {
		return fmt.Errorf("%s: its lock was granted without Redis and has no fence: %w", op, models.ErrUnavailable)
	}
	// One statement: it waits for another writer's row and compares afterwards.
	result, err := tx.ExecContext(ctx, `INSERT INTO `+g.table()+` AS held (resource, fence) VALUES ($1, $2)
		ON CONFLICT (resource) DO UPDATE SET fence = excluded.fence WHERE held.fence <= excluded.fence`, resource, *fence)
	var written int64
	if err == nil {
		written, err = result.RowsAffected()
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w: %w", op, models.ErrUnavailable, err)
	case written == 0:
		return fmt.Errorf("%s: a later fence than %d has written: %w", op, *fence, models.ErrNotHeld)
	}
	return nil
}

func (g Guard) table() string {
	parts := strings.Split(cmp.Or(g.Table, "lock_fences"), ".")
	for i, part := range parts {
		parts[i] = `"` + strings.ReplaceAll(part, `"`, `""`) + `"`
	}
	return strings.Join(parts, ".")
}
