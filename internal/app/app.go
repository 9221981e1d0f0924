// Package app is the program as a value: Run reads the configuration, starts everything in
// order (wire.go, router.go), serves until its context ends, drains and closes.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"gatehouse/handlers"
	"gatehouse/internal/config"
	"gatehouse/services/store"
	"gatehouse/templates"
)

const (
	startPatience = 500 * time.Millisecond // for the first answer of Redis
	closeTimeout  = 5 * time.Second        // for what is closed after HTTP has drained
)

const usage = `gatehouse takes no arguments: it is configured by environment variables, or a
file .env in the current folder. See .env.example for all of them.
`

// Run is the program as a value: it serves until ctx ends, drains, and returns
// nil if nothing was cut off. That includes a start that ctx ends, but not one
// that fails for a reason of its own meanwhile.
func Run(ctx context.Context, args []string, getenv func(string) string, stdout io.Writer) error {
	if len(args) > 0 {
		_, err := io.WriteString(stdout, usage)
		if args[0] != "-h" && args[0] != "--help" {
			return fmt.Errorf("unknown argument %q", args[0])
		}
		return err
	}
	cfg, err := config.Load(getenv, ".env")
	if err != nil {
		return err
	}
	app, err := newApp(ctx, cfg, stdout)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil { // nothing was served that could be cut off
		newLogger(cfg, stdout).Info("stopped during the start", "at", err)
		return nil
	}
	if err != nil {
		return err
	}
	return app.serve(ctx)
}

// app is everything that runs, in the order in which it was started.
type app struct {
	config   config.Config
	log      *slog.Logger
	stdout   io.Writer
	handlers *handlers.Handlers
	server   *http.Server
	listener *connections
	hangUps  chan os.Signal                // from the start on, see catchHangUps
	closers  []func(context.Context) error // closed last to first
}

// newApp opens the database, which must be there, begins to connect to Redis,
// which need not, and listens.
func newApp(ctx context.Context, cfg config.Config, stdout io.Writer) (*app, error) {
	a := &app{config: cfg, stdout: stdout, log: newLogger(cfg, stdout)}
	if err := a.start(ctx); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func newLogger(cfg config.Config, w io.Writer) *slog.Logger {
	opt := &slog.HandlerOptions{Level: cfg.LogLevel}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}

func (a *app) start(ctx context.Context) error {
	slog.SetDefault(a.log)
	a.catchHangUps()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	if err := a.listen(ctx); err != nil {
		return err
	}
	// Redis answers, and the pages are parsed, while the database is opened.
	pages := sync.OnceValues(templates.New)
	var parsed sync.WaitGroup
	parsed.Go(func() { _, _ = pages() })
	defer parsed.Wait() // also where the start fails before it needs them
	rdb, err := a.connectRedis(registry)
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, store.Options{
		URL: a.config.DatabaseURL, Timeout: a.config.DatabaseTimeout, MaxConns: a.config.DatabaseMaxConns,
		AuditRetention: a.config.AuditRetention, Logger: a.log,
	})
	if err != nil {
		return fmt.Errorf("DATABASE_URL: %w", err)
	}
	a.closers = append(a.closers, func(context.Context) error { return db.Close() })
	secrets, err := a.secrets(ctx, db)
	if err != nil {
		return err
	}
	ready, stop := context.WithTimeout(ctx, startPatience)
	defer stop()
	rdb.WaitReady(ready)
	options, err := a.wire(ctx, db, rdb, secrets, registry)
	if err != nil {
		return err
	}
	options.Pages, err = pages()
	if err != nil {
		return err
	}
	a.handlers = handlers.New(options)
	router, err := a.router(registry)
	if err != nil {
		return err
	}
	a.server = &http.Server{
		Handler:           router,
		ConnState:         a.listener.follow,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second, // a lock request may wait 30 s
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
	}
	return nil
}

// listen takes the port first: an address in use ends the program before anything is
// started. With port 0 it makes up the public address.
func (a *app) listen(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", a.config.Addr)
	if err != nil {
		return fmt.Errorf("ADDR=%q: %w", a.config.Addr, err)
	}
	a.listener = newConnections(listener, connectionsFor(fileLimit(), a.config.DatabaseMaxConns), a.log)
	a.closers = append(a.closers, func(context.Context) error {
		if err := a.listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	if public, ok := strings.CutSuffix(a.config.PublicURL, ":0"); ok {
		_, port, _ := net.SplitHostPort(a.listener.Addr().String())
		a.config.PublicURL = public + ":" + port
	}
	return nil
}

// serve answers requests until ctx ends, then drains: waiting lock requests are
// answered first, then requests under way are finished, then the rest is closed.
func (a *app) serve(ctx context.Context) error {
	a.printWelcome()
	failed := make(chan error, 1)
	go func() { failed <- a.server.Serve(a.listener) }()
	select {
	case err := <-failed:
		return errors.Join(fmt.Errorf("serve: %w", err), a.close())
	case <-ctx.Done():
	}
	a.log.Info("shutting down", "timeout_ms", a.config.ShutdownTimeout.Milliseconds())
	a.handlers.NotReady() // load balancers see it before connections are refused
	select {
	case err := <-failed:
		return errors.Join(fmt.Errorf("serve: %w", err), a.close())
	case <-time.After(a.config.ShutdownDelay):
	}
	a.handlers.Drain()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.config.ShutdownTimeout)
	defer cancel()
	err := a.server.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // unless more is left than connections on which nothing was sent
		if a.listener.busy() {
			err = fmt.Errorf("SHUTDOWN_TIMEOUT=%s passed: requests under way were cut off", a.config.ShutdownTimeout)
		}
		err = errors.Join(err, a.server.Close())
	}
	if err := a.close(); err != nil { // no request was cut off by it
		a.log.Warn("not everything was closed in order", "error", err)
	}
	return err
}

// close ends what was started, last to first.
func (a *app) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i](ctx))
	}
	a.closers = nil
	return errors.Join(errs...)
}
