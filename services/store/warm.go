package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync"
	"time"

	"gatehouse/internal/background"
)

const (
	warmConns    = 10               // are kept open at most, though nothing asks
	warmInterval = time.Minute      // between two looks
	warmAgain    = time.Second      // after the first look that did not open all
	dialPatience = 10 * time.Second // for a connection that no call waits for
)

// KeepWarm keeps connections to PostgreSQL open, up to 10 of Options.MaxConns, until stop is
// called. A new connection takes longer than most calls, on a busy machine longer than
// Options.Timeout: a burst of calls after a quiet time would fail. It begins at once, in the
// background; what a restart of the server has closed is replaced within a minute. SQLite has no
// need of it. stop waits until it has ended; if the context of stop ends first, stop returns the
// cause of that.
func (s *Store) KeepWarm() (stop func(context.Context) error) {
	if s.read.ahead == nil {
		return func(context.Context) error { return nil }
	}
	return background.Run(func(life context.Context) {
		for again := warmAgain; ; {
			next := again
			if s.read.warm(life) {
				next, again = warmInterval, warmAgain
			} else {
				again = min(2*again, warmInterval)
			}
			select {
			case <-time.After(next):
			case <-life.Done():
				return
			}
		}
	})
}

// warm opens the connections that are missing, one after another, so that it never keeps more than
// one from the calls. Then it takes as many as are kept open, all at once, asks the server over
// each, and gives them back: none has been idle for long, or is left of a server that was restarted.
// Where calls are under way it leaves that to them. all says that the connections are open. A pool
// of one connection is left to its calls: they would have none meanwhile.
func (p *pool) warm(ctx context.Context) (all bool) {
	n := min(p.conns, warmConns)
	for p.conns > 1 && p.Stats().OpenConnections < n {
		if !p.open(ctx) {
			return false
		}
	}
	if !p.turns.TryAcquire(int64(n)) {
		return p.Stats().OpenConnections >= n
	}
	defer p.turns.Release(int64(n))
	ctx, cancel := context.WithTimeout(ctx, p.timeout/4) // calls that come meanwhile wait no longer
	defer cancel()
	taken := make([]*sql.Conn, n)
	var group sync.WaitGroup
	for i := range taken {
		group.Go(func() { taken[i] = p.answering(ctx) })
	}
	group.Wait()
	all = true
	for _, conn := range taken {
		if conn == nil {
			all = false
		} else {
			_ = conn.Close()
		}
	}
	return all
}

// answering is a connection over which the server answers. It is nil where there is none in time;
// one that is dead is dropped, and the next look opens another.
func (p *pool) answering(ctx context.Context) *sql.Conn {
	conn, err := p.Conn(ctx)
	if err != nil {
		return nil
	}
	if err := conn.PingContext(ctx); err != nil {
		_ = conn.Close()
		return nil
	}
	return conn
}

// open makes the pool one connection larger, with more patience than a call has. It does so in a
// turn: with those of the calls there are never more connections than turns. opened is false, too,
// where no turn is free.
func (p *pool) open(ctx context.Context) (opened bool) {
	if !p.turns.TryAcquire(1) {
		return false
	}
	defer p.turns.Release(1)
	conn, err := p.ahead.dial(ctx)
	if err != nil {
		return false
	}
	p.ahead.ready <- conn
	defer p.ahead.drop()
	ctx, cancel := context.WithTimeout(ctx, p.timeout/4)
	defer cancel()
	for len(p.ahead.ready) > 0 { // the pool connects only while it has no idle connection
		taken, err := p.Conn(ctx)
		if err != nil {
			return false
		}
		defer taken.Close()
	}
	return true
}

// aheadConnector has a connection ready for whoever connects next.
type aheadConnector struct {
	driver.Connector                  // for those who find none ready
	patient          driver.Connector // for those who nobody waits for
	ready            chan driver.Conn // room for one, which open leaves there for no longer than a moment
}

// Connect returns the connection that is ready, or dials.
func (c *aheadConnector) Connect(ctx context.Context) (driver.Conn, error) {
	select {
	case conn := <-c.ready:
		return conn, nil
	default:
		return c.Connector.Connect(ctx)
	}
}

// dial connects for nobody in particular.
func (c *aheadConnector) dial(ctx context.Context) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	return c.patient.Connect(ctx)
}

// drop closes the connection that is ready, if nobody took it.
func (c *aheadConnector) drop() {
	select {
	case conn := <-c.ready:
		_ = conn.Close()
	default:
	}
}
