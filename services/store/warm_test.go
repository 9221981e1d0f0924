package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// busyConnector is a server that is too busy for a connection in the time of a call.
type busyConnector struct{ driver.Connector }

func (busyConnector) Connect(ctx context.Context) (driver.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// counted counts the connections of its connectors that are open.
type counted struct{ open, most atomic.Int64 }

func (c *counted) of(connector driver.Connector) driver.Connector {
	return countingConnector{connector, c}
}

type countingConnector struct {
	driver.Connector
	counted *counted
}

func (c countingConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	open := c.counted.open.Add(1)
	for most := c.counted.most.Load(); most < open && !c.counted.most.CompareAndSwap(most, open); {
		most = c.counted.most.Load()
	}
	return countedConn{conn.(*stdlib.Conn), c.counted}, nil
}

type countedConn struct {
	*stdlib.Conn
	counted *counted
}

func (c countedConn) Close() error {
	c.counted.open.Add(-1)
	return c.Conn.Close()
}

// slowConnector is a server that is slow to connect: until it is let.
type slowConnector struct {
	driver.Connector
	asked chan struct{} // each that connects
	let   chan struct{} // closed: it may
}

func (c slowConnector) Connect(ctx context.Context) (driver.Conn, error) {
	select {
	case c.asked <- struct{}{}:
	case <-c.let:
	}
	<-c.let
	return c.Connector.Connect(ctx)
}

// While the server is slow to connect, a burst of calls opens what it needs by itself. Never are
// more connections open than MaxConns, and none lies about of which the pool does not know.
func TestWarmConnectionsAreOfThePool(t *testing.T) {
	t.Parallel()
	const conns = 4
	s, err := Open(t.Context(), Options{URL: servicestest.StartPostgres(t), Timeout: servicestest.Patience, MaxConns: conns})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.reconnect()
	servicestest.Eventually(t, func() bool { return s.read.Stats().OpenConnections == 0 }, "connections stay open")
	var counted counted
	slow := slowConnector{counted.of(s.read.ahead.patient), make(chan struct{}), make(chan struct{})}
	s.read.ahead.Connector, s.read.ahead.patient = counted.of(s.read.ahead.Connector), slow

	warmed := make(chan struct{})
	go func() { defer close(warmed); s.read.warm(t.Context()) }()
	<-slow.asked
	var burst, busy sync.WaitGroup
	busy.Add(conns - 1)
	finish := make(chan struct{})
	for range conns - 1 {
		burst.Go(func() {
			err := s.read.all(t.Context(), func(ctx context.Context, q querier) error {
				busy.Done()
				<-finish
				return nil
			})
			if err != nil {
				t.Errorf("a call of the burst: %v", err)
			}
		})
	}
	busy.Wait() // though the dial goes on
	last := make(chan error)
	go func() { _, err := s.Empty(t.Context()); last <- err }()
	close(slow.let)
	if err := <-last; err != nil {
		t.Errorf("the call that the dial kept waiting: %v", err)
	}
	close(finish)
	burst.Wait()
	<-warmed
	if most, open, known := counted.most.Load(), counted.open.Load(), s.read.Stats().OpenConnections; most > conns || open != int64(known) {
		t.Errorf("at most %d connections of %d, and %d of which the pool knows %d", most, conns, open, known)
	}
}

// refusingConnector is a server that takes no connection.
type refusingConnector struct{ driver.Connector }

func (refusingConnector) Connect(context.Context) (driver.Conn, error) {
	return nil, errors.New("refused by the test")
}

// When the server was restarted, all connections of the pool are dead. The next looks replace them:
// a burst of calls finds all open, and dials none.
func TestWarmConnectionsAfterARestart(t *testing.T) {
	t.Parallel()
	const conns = 4
	server := servicestest.StartPostgresServer(t)
	s, err := Open(t.Context(), Options{URL: server.URL, Timeout: servicestest.Patience, MaxConns: conns})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.read.warm(t.Context()) {
		t.Fatalf("warm: %+v", s.read.Stats())
	}
	server.Kill(t)
	server.Start(t)
	s.read.ahead.Connector = refusingConnector{}
	servicestest.Eventually(t, func() bool { return s.read.warm(t.Context()) }, "the connections are not replaced")
	errs := make(chan error)
	for range conns {
		go func() { _, err := s.Empty(t.Context()); errs <- err }()
	}
	for range conns {
		if err := <-errs; err != nil {
			t.Errorf("a call of the burst: %v", err)
		}
	}
}

// A burst of calls finds connections open, also where to dial one takes longer than a call may.
func TestKeepWarm(t *testing.T) {
	t.Parallel()
	const conns = 6
	s, err := Open(t.Context(), Options{URL: servicestest.StartPostgres(t), Timeout: servicestest.Patience, MaxConns: conns})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	open := func(n int) func() bool {
		return func() bool {
			stats := s.read.Stats()
			return stats.OpenConnections == n && stats.InUse == 0
		}
	}
	stop := s.KeepWarm()
	servicestest.Eventually(t, open(conns), "the connections are not opened")
	if err := stop(context.Background()); err != nil {
		t.Error(err)
	}

	s.reconnect() // they are all closed, as after a quiet time
	servicestest.Eventually(t, open(0), "connections stay open")
	s.read.ahead.Connector = busyConnector{}
	hasty, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.Empty(hasty); !errors.Is(err, models.ErrUnavailable) {
		t.Fatalf("a call found a connection: %v", err)
	}
	if !s.read.warm(t.Context()) || !open(conns)() {
		t.Fatalf("warm: %+v", s.read.Stats())
	}
	_, done := s.read.turn(t.Context())
	if !s.read.warm(t.Context()) {
		t.Error("connections are open although a call is under way")
	}
	done()
	errs := make(chan error)
	for range conns {
		go func() { _, err := s.Empty(t.Context()); errs <- err }()
	}
	for range conns {
		if err := <-errs; err != nil {
			t.Errorf("a call of the burst: %v", err)
		}
	}

	t.Run("SQLite has no need of it", func(t *testing.T) {
		s, err := Open(t.Context(), Options{URL: newDatabase(t)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.KeepWarm()(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
