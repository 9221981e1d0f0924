package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync"
	"time"
)

const (
	warmConns    = 10               // are kept open at most, though nothing asks
	warmInterval = time.Minute      // between two looks
	warmAgain    = time.Second      // after the first look that did not open all
	dialPatience = 10 * time.Second // for a connection that no call waits for
)

// KeepWarm keeps connections to PostgreSQL open, up to 10 of Options.MaxConns, until stop is called. A
// new connection takes longer than most calls, on a busy machine longer than Options.Timeout: a burst
// of calls after a quiet time would fail. It begins at once, in the background. SQLite has no need of
// it. stop waits until it has ended; if the context of stop ends first, stop returns the cause of that.
func (s *Store) KeepWarm() (stop func(context.Context) error) {
	if s.read.ahead == nil {
		return func(context.Context) error { return nil }
	}
	life, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.read.ahead.drop()
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
	}()
	return func(ctx context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// warm dials the connections that are missing, which no call waits for. Then it takes as many as are
// kept open, all at once, and gives them back: they are the pool's, and none has been idle for long.
// Where calls are under way it leaves that to them. all says that the connections are open.
func (p *pool) warm(ctx context.Context) (all bool) {
	n := min(p.conns, warmConns)
	p.ahead.dial(ctx, n-p.Stats().OpenConnections)
	if !p.turns.TryAcquire(int64(n)) {
		return p.Stats().OpenConnections >= n
	}
	defer p.turns.Release(int64(n))
	ctx, cancel := context.WithTimeout(ctx, p.timeout/4) // calls that come meanwhile wait no longer
	defer cancel()
	taken := make([]*sql.Conn, n)
	var group sync.WaitGroup
	for i := range taken {
		group.Go(func() { taken[i], _ = p.Conn(ctx) }) // nil where it fails: the next look tries again
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

// aheadConnector has connections ready for those who connect.
type aheadConnector struct {
	driver.Connector                  // for those who find none ready
	patient          driver.Connector // for those who nobody waits for

	mu    sync.Mutex
	ready []driver.Conn
}

// Connect returns a connection that is ready, or dials.
func (c *aheadConnector) Connect(ctx context.Context) (driver.Conn, error) {
	c.mu.Lock()
	if last := len(c.ready) - 1; last >= 0 {
		conn := c.ready[last]
		c.ready = c.ready[:last]
		c.mu.Unlock()
		return conn, nil
	}
	c.mu.Unlock()
	return c.Connector.Connect(ctx)
}

// dial makes up to n connections ready, those included that are. What fails is left out.
func (c *aheadConnector) dial(ctx context.Context, n int) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	c.mu.Lock()
	n -= len(c.ready)
	c.mu.Unlock()
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			conn, err := c.patient.Connect(ctx)
			if err != nil {
				return
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.ready = append(c.ready, conn)
		})
	}
	group.Wait()
}

// drop closes the connections that are ready.
func (c *aheadConnector) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.ready {
		_ = conn.Close()
	}
	c.ready = nil
}
