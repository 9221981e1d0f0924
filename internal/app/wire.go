package app

import (
	"context"
	"crypto/rand"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"gatehouse/handlers"
	"gatehouse/middleware"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/ratelimit"
	"gatehouse/services/redis"
	"gatehouse/services/redis/embedded"
	"gatehouse/services/session"
	"gatehouse/services/store"
)

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

// connectRedis begins to connect: what it returns may not be ready.
func (a *app) connectRedis(registry prometheus.Registerer) (*redis.Client, error) {
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
	return rdb, nil
}

// wire joins the services. It leaves out the pages.
func (a *app) wire(ctx context.Context, db *store.Store, rdb *redis.Client, secrets []string, registry *prometheus.Registry) (handlers.Options, error) {
	c := a.config
	limits := newPolicies(c)
	limiter := ratelimit.New(rdb, ratelimit.Options{Metrics: registry, Logger: a.log})
	a.closers = append(a.closers, limiter.Close)
	if err := a.watchPolicies(limiter, limits); err != nil {
		return handlers.Options{}, err
	}
	recorder := services.NewRecorder(db, a.log)
	a.closers = append(a.closers, recorder.Close)
	locks := lock.New(rdb, lock.Options{
		OnRedisDown: c.LockOnRedisDown, MaxHold: c.LockMaxHold, Logger: a.log, Metrics: registry, Ended: recorder.LockEnded,
	})
	sessions, err := session.NewCache(rdb, db, session.Options{
		IdleTimeout: c.SessionIdleTimeout, AbsoluteTimeout: c.SessionAbsoluteTimeout, MaxPerUser: c.SessionMaxPerUser, Secrets: secrets,
		Watch: db.WatchRevocations, Budget: db.WithinBudget, Logger: a.log, Metrics: registry,
	})
	if err != nil {
		return handlers.Options{}, err
	}
	a.closers = append(a.closers, sessions.Close, db.KeepClean(), db.KeepWarm())
	accounts := services.NewAccounts(db, sessions, locks, limiter, services.AccountsOptions{
		LoginByIP: limits.loginByIP, LoginByAccount: limits.loginByAccount, Logger: a.log,
	})
	tokens, err := lock.NewTokenSigner(secrets)
	if err != nil {
		return handlers.Options{}, err
	}
	processes, err := services.NewProcesses(db, locks, tokens, secrets, services.ProcessesOptions{
		Protection: c.LockProtection, AskTimeout: c.LockAskTimeout, Ends: recorder, Logger: a.log,
	})
	if err != nil {
		return handlers.Options{}, err
	}
	a.closers = append(a.closers, processes.KeepSettling())
	if err := fillDatabase(ctx, c, db, accounts); err != nil {
		return handlers.Options{}, err
	}
	return handlers.Options{
		Processes: processes, Locks: locks, Accounts: accounts, Recorder: recorder, Sessions: sessions, Limiter: limiter, Redis: rdb, Database: db,
		Cookie:  middleware.NewSessionStore(sessions, middleware.SessionStoreOptions{Name: "gatehouse", Secure: c.Secure()}),
		Metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), PublicURL: c.PublicURL,
		API: limits.api, Anonymous: limits.anonymous,
		LocksPerUser: c.LockMaxPerUser, StreamsPerUser: c.StreamsPerUser, Connections: a.listener.max,
	}, nil
}
