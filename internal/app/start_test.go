package app

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"gatehouse/services/servicestest"
)

// stopped is a context that ends at a certain look at it, and when the program says that it serves.
type stopped struct {
	context.Context //nolint:containedctx // it is one
	end             context.CancelFunc
	left            atomic.Int64
}

func (s *stopped) Done() <-chan struct{} {
	if s.left.Add(-1) == 0 {
		s.end()
	}
	return s.Context.Done()
}

func (s *stopped) Write(text []byte) (int, error) {
	if strings.Contains(string(text), "http://") {
		s.end()
	}
	return len(text), nil
}

// A program that is told to stop ends without an error, also when it has only begun to start.
func TestStopDuringTheStart(t *testing.T) {
	t.Parallel()
	const looks = 64
	for name, url := range map[string]func() string{
		"sqlite":   func() string { return filepath.Join(t.TempDir(), "test.db") },
		"postgres": func() string { return servicestest.StartPostgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := map[string]string{"ADDR": "127.0.0.1:0", "DATABASE_URL": url(), "DEMO": "false", "SHUTDOWN_DELAY": "0s", "DATABASE_TIMEOUT": "1m"}
			for look := int64(1); look <= looks; look *= 4 {
				ctx, end := context.WithCancel(t.Context())
				program := &stopped{Context: ctx, end: end}
				program.left.Store(look)
				if err := Run(program, nil, func(name string) string { return env[name] }, program); err != nil {
					t.Errorf("stopped at look %d: %v", look, err)
				}
				end()
			}
		})
	}
	t.Run("and with one if that is no reason", func(t *testing.T) {
		env := map[string]string{"ADDR": "127.0.0.1:0", "DATABASE_URL": t.TempDir()}
		if err := Run(t.Context(), nil, func(name string) string { return env[name] }, io.Discard); err == nil {
			t.Error("a folder is no database")
		}
	})
	t.Run("also when it is told to stop meanwhile", func(t *testing.T) {
		taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		env := map[string]string{"ADDR": taken.Addr().String(), "DATABASE_URL": filepath.Join(t.TempDir(), "test.db")}
		ended, end := context.WithCancel(t.Context())
		end()
		err = Run(ended, nil, func(name string) string { return env[name] }, io.Discard)
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("the address is in use: %v", err)
		}
	})
}
