package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// A group takes no more writes once it has groupSize of them or has lasted for groupTime: the first
// ones wait for their answers meanwhile.
const (
	groupSize = 64
	groupTime = 20 * time.Millisecond
)

var (
	errClosed    = errors.New("the database is closed")
	errAbandoned = errors.New("the write that led the group ended before the commit")
)

// group is the connection that writes to SQLite. A write that finds it free is done at once. Those
// that come meanwhile wait in line, and then share one transaction, and so one fsync: the first of
// them leads, which is to run the others' writes, too, each in a savepoint. All are answered after
// the commit, and the first that waits then leads the next group.
//
// Whoever leads holds the connection. The mutex is for the line only, and held for moments.
type group struct {
	db      *sql.DB // one connection
	timeout time.Duration
	inPlace func() error // nil if a start would find what is committed

	mu      sync.Mutex
	led     bool      // a leader is at work
	line    []*member // who waits, in the order in which they came
	closed  bool
	drained chan struct{} // closed when the group is, and all that came before is done
}

// member is one write of a group.
type member struct {
	write    func(q querier) error
	gaveUp   func() error // why the caller did, nil if it still waits
	err      error        // of the write, set by the leader
	panicked *writePanic  // in the write
	wake     chan bool    // true: lead now; false: the write is answered
}

func newGroup(db *sql.DB, timeout time.Duration, inPlace func() error) *group {
	db.SetMaxOpenConns(1)
	db.SetMaxIdleConns(1)
	return &group{db: db, timeout: timeout, inPlace: inPlace, drained: make(chan struct{})}
}

// one and all are the same: whatever a write does is done or not as a whole.
func (g *group) one(ctx context.Context, write writeFunc) error { return g.all(ctx, write) }

// all runs write in a group. The write has not begun if the context ends in line, where no call
// waits so long that it could not be served any more. Once begun, it is waited for: to interrupt a
// statement of one write would make SQLite roll back all of the group's.
func (g *group) all(ctx context.Context, write writeFunc) error {
	ctx, left, done := within(ctx, g.timeout)
	defer done()
	m := &member{gaveUp: ctx.Err, wake: make(chan bool, 1), write: func(q querier) error {
		return write(context.WithoutCancel(ctx), q)
	}}
	leads, err := g.enter(m)
	if err != nil {
		return err
	}
	if !leads {
		if leads, err = g.wait(ctx, m, left*3/4); err != nil {
			return err
		}
	}
	if leads {
		g.lead(ctx, m)
	}
	if m.panicked != nil {
		panic(m.panicked)
	}
	return m.err
}

// enter takes the lead if it is free, or else a place in the line.
func (g *group) enter(m *member) (leads bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return false, errClosed
	case !g.led:
		g.led = true
		return true, nil
	}
	g.line = append(g.line, m)
	return false, nil
}

// wait waits until the write is answered, or leads. It fails if that did not come in time.
func (g *group) wait(ctx context.Context, m *member, patience time.Duration) (leads bool, err error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case leads = <-m.wake:
		return leads, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-late.C:
		err = context.DeadlineExceeded
	}
	if g.leave(m) {
		return false, err
	}
	return <-m.wake, nil // a leader has it already
}

// leave takes a write out of the line, if it is still there.
func (g *group) leave(m *member) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.line, m)
	if i < 0 {
		return false
	}
	g.line = slices.Delete(g.line, i, i+1)
	return true
}

// next takes the first write out of the line; nil if there is none.
func (g *group) next() *member {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.first()
}

func (g *group) first() *member {
	if len(g.line) == 0 {
		return nil
	}
	m := g.line[0]
	g.line[0], g.line = nil, g.line[1:]
	return m
}

// handOver makes the first in the line the leader.
func (g *group) handOver() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.first(); m != nil {
		m.wake <- true
		return
	}
	g.led = false
	if g.closed {
		close(g.drained)
	}
}

// lead writes a group: the leader's own write and those of who waits. The context is the leader's.
func (g *group) lead(ctx context.Context, own *member) {
	members, err := []*member{own}, errAbandoned
	defer func() { // also if the driver panics
		g.handOver()
		for _, m := range members {
			m.answer(err)
		}
	}()
	err = g.transact(ctx, func(ctx context.Context, conn *sql.Conn) error {
		ends := time.Now().Add(groupTime)
		if own.err = own.gaveUp(); own.err == nil {
			own.err = own.call(conn)
		}
		if own.err != nil { // nothing else is done yet
			return own.err
		}
		for len(members) < groupSize && time.Now().Before(ends) {
			m := g.next()
			if m == nil {
				return nil
			}
			members = append(members, m)
			if err := m.run(ctx, conn); err != nil {
				return err
			}
		}
		return nil
	})
}

// transact runs fn in a transaction, in which the context does not end any more: it bounds only the
// wait for the writes of other processes.
func (g *group) transact(ctx context.Context, fn func(ctx context.Context, conn *sql.Conn) error) error {
	if err := g.inPlace(); err != nil {
		return err
	}
	conn, err := g.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	lasting, committed := context.WithoutCancel(ctx), false
	defer func() {
		if !committed {
			// It fails if there is no transaction any more. BEGIN may have failed because its
			// context ended, and have begun one.
			_, _ = conn.ExecContext(lasting, `ROLLBACK`)
		}
	}()
	if _, err := conn.ExecContext(ctx, `BEGIN IMMEDIATE`); err != nil {
		return err
	}
	if err := fn(lasting, conn); err != nil {
		return err
	}
	if _, err := conn.ExecContext(lasting, `COMMIT`); err != nil {
		return err
	}
	committed = true
	return g.inPlace()
}

// Close refuses new writes and waits for those that came before.
func (g *group) Close() error {
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		if !g.led {
			close(g.drained)
		}
	}
	g.mu.Unlock()
	<-g.drained
	return g.db.Close()
}

// run does the write in a savepoint, so that it fails alone. It returns an error if the failure was
// one for which SQLite has rolled back the whole transaction, such as a full disk.
func (m *member) run(ctx context.Context, conn *sql.Conn) error {
	if m.err = m.gaveUp(); m.err != nil {
		return nil
	}
	if _, err := conn.ExecContext(ctx, `SAVEPOINT member`); err != nil {
		return err
	}
	if m.err = m.call(conn); m.err != nil {
		if _, err := conn.ExecContext(ctx, `ROLLBACK TO member`); err != nil {
			//nolint:errorlint // the answer to this write is not that of the others
			return fmt.Errorf("rolled back with a write that failed (%v): %w", m.err, err)
		}
	}
	_, err := conn.ExecContext(ctx, `RELEASE member`)
	return err
}

// call runs the write and keeps its panic for its own caller.
func (m *member) call(conn *sql.Conn) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			m.panicked = &writePanic{cause, debug.Stack()}
			err = m.panicked
		}
	}()
	return m.write(conn)
}

// answer tells the caller how the write ended. If the group failed nothing of it is done, and what
// the write read may never have been: only the reason why the database refused it still stands.
func (m *member) answer(group error) {
	if group != nil && refusal(m.err) == "" {
		m.err = group
	}
	m.wake <- false
}

// writePanic is the panic of a write in another goroutine than its caller's.
type writePanic struct {
	cause any
	stack []byte // where it was
}

func (p *writePanic) Error() string { return fmt.Sprintf("%v\n\n%s", p.cause, p.stack) }
