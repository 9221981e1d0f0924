package store

import (
	"context"
	"database/sql"
	"time"

	"golang.org/x/sync/semaphore"
)

// pool is connections that calls use in the order they came in. database/sql alone
// gives a connection that becomes free to any one of those that wait, so that of
// many calls some wait for many times the average, and past their timeout.
type pool struct {
	*sql.DB
	conns   int
	timeout time.Duration
	turns   *semaphore.Weighted
	ahead   *aheadConnector // nil where connections are opened in no time
	// How long another process may delay a statement, by SQLite's busy timeout. 0: as long as the
	// statement's context lasts.
	delay time.Duration
}

func newPool(db *sql.DB, conns int, timeout time.Duration) *pool {
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return &pool{DB: db, conns: conns, timeout: timeout, turns: semaphore.NewWeighted(int64(conns))}
}

// turn waits for the caller's turn, and bounds that and all that is done in it. No
// call waits so long that it could not be served any more: under a lasting load
// all turns would go to such calls. If the turn did not come, the context is done
// and fails what is tried with it. A call takes one turn at a time.
func (p *pool) turn(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, left, cancel := within(ctx, p.timeout)
	if !p.turns.TryAcquire(1) { // it never overtakes a call that waits
		wait, stop := context.WithTimeout(ctx, left*3/4)
		if p.turns.Acquire(wait, 1) != nil {
			return wait, func() { stop(); cancel() }
		}
		stop()
	}
	return ctx, func() {
		p.turns.Release(1)
		cancel()
	}
}

// atOnce is turn for one statement that reads one row by a key. SQLite answers that before anything
// could interrupt it. A context that ends would cost a timer and two goroutines, those of
// database/sql and of the driver, so the returned one never ends. Only another process can delay the
// statement: a call that has less time left, or has to wait, takes an ordinary turn.
func (p *pool) atOnce(ctx context.Context) (context.Context, context.CancelFunc) {
	b := budgetOf(ctx)
	_, ends := ctx.Deadline()
	if p.delay == 0 || ends || ctx.Err() != nil || b.left(p.timeout) < p.delay || !p.turns.TryAcquire(1) {
		return p.turn(ctx)
	}
	began := time.Now()
	return context.WithoutCancel(ctx), func() {
		p.turns.Release(1)
		b.spend(time.Since(began))
	}
}

// one runs write in its turn: each statement is a transaction of its own.
func (p *pool) one(ctx context.Context, write writeFunc) error {
	ctx, done := p.turn(ctx)
	defer done()
	return write(ctx, p)
}

// all runs write in its turn, in one transaction.
func (p *pool) all(ctx context.Context, write writeFunc) error {
	ctx, done := p.turn(ctx)
	defer done()
	tx, err := p.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // without effect after Commit
	if err := write(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}

// reconnect closes the connections that are not in use, so that the next calls open
// new ones.
func (p *pool) reconnect() {
	p.SetMaxIdleConns(0)
	p.SetMaxIdleConns(p.conns)
}
