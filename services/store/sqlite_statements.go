package store

import (
	"context"
	"database/sql/driver"
)

// keptStatements is how many statements a connection keeps. The store has fewer texts, but for
// those with a list in them.
const keptStatements = 100

// sqliteConn is what the driver's connections can do.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// preparingConn prepares each text once and keeps the statement: SQLite would parse it anew each
// time, which takes longer than most answers. The driver of PostgreSQL does the same by itself.
type preparingConn struct {
	sqliteConn
	kept map[string]*keptStatement
}

// keptStatement is one that no two callers may use at the same time: of a transaction, one may read
// its rows while the other asks.
type keptStatement struct {
	driver.Stmt
	inUse bool
}

func prepareOnce(conn driver.Conn) driver.Conn {
	return &preparingConn{conn.(sqliteConn), map[string]*keptStatement{}}
}

// statement returns the statement of a text; nil if it is in use.
func (c *preparingConn) statement(ctx context.Context, text string) (*keptStatement, error) {
	if kept := c.kept[text]; kept != nil {
		if kept.inUse {
			return nil, nil
		}
		return kept, nil
	}
	prepared, err := c.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	if len(c.kept) >= keptStatements {
		c.dropOne()
	}
	kept := &keptStatement{Stmt: prepared}
	c.kept[text] = kept
	return kept, nil
}

// dropOne makes room. Which one goes is left to chance: one that is used often soon is back.
func (c *preparingConn) dropOne() {
	for text, kept := range c.kept {
		if !kept.inUse {
			delete(c.kept, text)
			_ = kept.Close()
			return
		}
	}
}

func (c *preparingConn) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	kept, err := c.statement(ctx, text)
	if err != nil {
		return nil, err
	}
	if kept == nil {
		return c.sqliteConn.ExecContext(ctx, text, args)
	}
	return kept.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
}

func (c *preparingConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	kept, err := c.statement(ctx, text)
	if err != nil {
		return nil, err
	}
	if kept == nil {
		return c.sqliteConn.QueryContext(ctx, text, args)
	}
	rows, err := kept.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
	if err != nil {
		return nil, err
	}
	kept.inUse = true
	return &keptRows{rows, kept}, nil
}

// Close closes the statements first, or the connection would stay open.
func (c *preparingConn) Close() error {
	for _, kept := range c.kept {
		_ = kept.Close()
	}
	return c.sqliteConn.Close()
}

type keptRows struct {
	driver.Rows
	of *keptStatement
}

// Close lets the statement be used again.
func (r *keptRows) Close() error {
	err := r.Rows.Close()
	r.of.inUse = false
	return err
}
