package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	swaggerfiles "github.com/swaggo/files"
	ginswagger "github.com/swaggo/gin-swagger"

	_ "gatehouse/docs" // the generated API description
	"gatehouse/handlers"
	"gatehouse/middleware"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/ratelimit"
	"gatehouse/services/redis"
	"gatehouse/services/redis/embedded"
	"gatehouse/services/session"
	"gatehouse/services/store"
	"gatehouse/templates"
)

const (
	startPatience = 500 * time.Millisecond // for the first answer of Redis
	closeTimeout  = 5 * time.Second        // for what is closed after HTTP has drained
)

// app is everything that runs, in the order in which it was started.
type app struct {
	config   Config
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
func newApp(ctx context.Context, config Config, stdout io.Writer) (*app, error) {
	a := &app{config: config, stdout: stdout, log: newLogger(config, stdout)}
	if err := a.start(ctx); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func newLogger(config Config, w io.Writer) *slog.Logger {
	opt := &slog.HandlerOptions{Level: config.LogLevel}
	if config.LogFormat == "json" {
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
	rdb, err := a.connectRedis(ctx, registry)
	if err != nil {
		return err
	}
	options, err := a.wire(ctx, db, rdb, secrets, registry)
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

// listen takes the port first: an address in use is told before anything is
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

// secrets are the configured keys, or in development one that is made once and
// kept in the database.
func (a *app) secrets(ctx context.Context, db *store.Store) ([]string, error) {
	if a.config.SecretKeys != nil {
		return a.config.SecretKeys, nil
	}
	kept, err := db.Setting(ctx, "secret_key", rand.Text()+rand.Text())
	if err != nil {
		return nil, err
	}
	return []string{kept}, nil
}

func (a *app) connectRedis(ctx context.Context, registry prometheus.Registerer) (*redis.Client, error) {
	opt := redis.Options{
		Disabled: !a.config.RedisEnabled, Embedded: a.config.EmbeddedRedis(),
		KeyPrefix: a.config.RedisKeyPrefix, Timeout: a.config.RedisTimeout, Logger: a.log, Metrics: registry,
	}
	switch {
	case opt.Disabled:
	case opt.Embedded:
		embedded, err := embedded.Start()
		if err != nil {
			return nil, err
		}
		a.closers = append(a.closers, func(context.Context) error { embedded.Close(); return nil })
		opt.Client = embedded.ClientOption()
	default:
		client, err := a.config.RedisClient()
		if err != nil {
			return nil, err
		}
		opt.Client = client
	}
	rdb := redis.New(opt)
	a.closers = append(a.closers, rdb.Close)
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	rdb.WaitReady(ctx)
	return rdb, nil
}

// wire joins the services.
func (a *app) wire(ctx context.Context, db *store.Store, rdb *redis.Client, secrets []string, registry *prometheus.Registry) (handlers.Options, error) {
	c := a.config
	limits := newPolicies(c)
	limiter := ratelimit.New(rdb, ratelimit.Options{Metrics: registry, Logger: a.log})
	a.closers = append(a.closers, limiter.Close)
	if err := a.watchPolicies(limiter, limits); err != nil {
		return handlers.Options{}, err
	}
	locks := lock.New(rdb, &lock.Options{OnRedisDown: c.LockOnRedisDown, Logger: a.log, Metrics: registry})
	sessions, err := session.NewCache(rdb, db, session.Options{
		IdleTimeout: c.SessionIdleTimeout, AbsoluteTimeout: c.SessionAbsoluteTimeout, MaxPerUser: c.SessionMaxPerUser, Secrets: secrets,
		Watch: db.WatchRevocations, Budget: db.WithinBudget, Logger: a.log, Metrics: registry,
	})
	if err != nil {
		return handlers.Options{}, err
	}
	a.closers = append(a.closers, sessions.Close, db.KeepClean(a.log))
	accounts := services.NewAccounts(db, sessions, locks, limiter, services.AccountsOptions{
		LoginByIP: limits.loginByIP, LoginByAccount: limits.loginByAccount, Logger: a.log,
	})
	tokens, err := lock.NewTokenSigner(secrets)
	if err != nil {
		return handlers.Options{}, err
	}
	processes, err := services.NewProcesses(db, locks, tokens, secrets)
	if err != nil {
		return handlers.Options{}, err
	}
	if err := fillDatabase(ctx, c, db, accounts); err != nil {
		return handlers.Options{}, err
	}
	pages, err := templates.New()
	if err != nil {
		return handlers.Options{}, err
	}
	return handlers.Options{
		Processes: processes, Locks: locks, Accounts: accounts, Sessions: sessions, Limiter: limiter, Redis: rdb, Database: db,
		Pages: pages, Cookie: middleware.NewSessionStore(sessions, middleware.SessionStoreOptions{Name: "gatehouse", Secure: c.Secure()}),
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), PublicURL: c.PublicURL,
		API: limits.api, Anonymous: limits.anonymous,
		LocksPerUser: c.LockMaxPerUser, StreamsPerUser: c.StreamsPerUser, Connections: a.listener.max,
	}, nil
}

func (a *app) router(registry prometheus.Registerer) (*gin.Engine, error) {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.UseRawPath, r.HandleMethodNotAllowed = true, true
	r.RedirectTrailingSlash = false
	r.RemoteIPHeaders = []string{"X-Forwarded-For"} // a proxy that sets it passes on whatever else a client sends
	if err := r.SetTrustedProxies(a.config.TrustedProxies); err != nil {
		return nil, fmt.Errorf("TRUSTED_PROXIES: %w", err)
	}
	r.Use(middleware.WarnUntrustedProxy(a.log, a.config.TrustedProxies))
	r.Use(middleware.RequestID(), middleware.AccessLog(a.log, "/healthz", "/readyz", "/metrics", "/dashboard/locks"), middleware.Metrics(registry),
		middleware.Recovery(a.log), middleware.SecurityHeaders(a.config.Secure()))
	a.handlers.Register(r)
	docs := ginswagger.WrapHandler(swaggerfiles.Handler, ginswagger.PersistAuthorization(true))
	r.GET("/swagger/*any", func(c *gin.Context) {
		if c.Param("any") == "/" {
			c.Redirect(http.StatusFound, "/swagger/index.html")
			return
		}
		docs(c)
	})
	return r, nil
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
	a.log.Info("shutting down", "timeout", a.config.ShutdownTimeout)
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
