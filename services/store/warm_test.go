package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// busyConnector is a server that is too busy for a connection in the time of a call.
type busyConnector struct{ driver.Connector }

func (busyConnector) Connect(ctx context.Context) (driver.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
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
	if err := stop(context.Background()); err != nil || len(s.read.ahead.ready) != 0 {
		t.Errorf("%v, and %d connections are left", err, len(s.read.ahead.ready))
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
		s, err := Open(t.Context(), Options{URL: filepath.Join(t.TempDir(), "test.db")})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.KeepWarm()(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
