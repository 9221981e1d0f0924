package architecture_test

import (
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/redis/rueidis"

	"gatehouse/handlers"
	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/ratelimit"
	"gatehouse/services/ratelimit/policyfile"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
	"gatehouse/services/store"
	"gatehouse/templates"
)

// wrong is one argument that a constructor must not take, and a word of what it says
// about it.
type wrong struct {
	says string
	call func() error
}

// panics is a constructor that returns no error.
func panics(call func()) func() error { return func() error { call(); return nil } }

// wrongArguments are, for each constructor with parameters, its arguments that are
// nil, empty or too short. Constructors for which all of these mean something are
// there with nothing.
func wrongArguments(t *testing.T) map[string][]wrong {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	rdb := redis.New(redis.Options{Disabled: true, Logger: quiet})
	db, err := store.Open(t.Context(), store.Options{URL: filepath.Join(t.TempDir(), "test.db"), Timeout: servicestest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := session.NewCache(rdb, db, session.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	long := []string{strings.Repeat("s", models.MinSecret)}
	signer, err := lock.NewTokenSigner(long)
	if err != nil {
		t.Fatal(err)
	}
	locks := lock.New(rdb, lock.Options{})
	limiter := ratelimit.New(rdb, ratelimit.Options{})
	t.Cleanup(func() {
		ctx := context.Background()
		_, _, _ = sessions.Close(ctx), rdb.Close(ctx), db.Close()
	})
	policy := models.Policy{Name: "login", Limit: 1, Window: time.Second}
	limits := services.AccountsOptions{LoginByIP: policy, LoginByAccount: policy}
	address := rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}}

	script, background := rueidis.NewLuaScript("return 1"), func(func()) bool { return false }

	all := map[string][]wrong{
		"redis.NewTracking": {
			{"no Client", panics(func() { redis.NewTracking(nil, func(string) {}) })},
			{"no changed", panics(func() { redis.NewTracking(rdb, nil) })},
		},
		"redis.NewBatcher": {
			{"no Client", panics(func() { redis.NewBatcher(nil, script, 1, 1, background) })},
			{"no script", panics(func() { redis.NewBatcher(rdb, nil, 1, 1, background) })},
			{"no spawn", panics(func() { redis.NewBatcher(rdb, script, 1, 1, nil) })},
		},
		"redis.New": {
			{"no address", panics(func() { redis.New(redis.Options{}) })},
			{"brace in KeyPrefix", panics(func() { redis.New(redis.Options{Client: address, KeyPrefix: "{a}:"}) })},
			{"not host:port", panics(func() {
				redis.New(redis.Options{Client: rueidis.ClientOption{InitAddress: []string{"redis://127.0.0.1:1"}}})
			})},
			{"MaxInFlight is negative", panics(func() { redis.New(redis.Options{Client: address, MaxInFlight: -1}) })},
		},
		"session.NewCache": {
			{"no Redis", func() error { return second(session.NewCache(nil, db, session.Options{})) }},
			{"no Database", func() error { return second(session.NewCache(rdb, nil, session.Options{})) }},
			{"IdleTimeout 13h0m0s is above", func() error {
				return second(session.NewCache(rdb, db, session.Options{IdleTimeout: 13 * time.Hour}))
			}},
			{"IdleTimeout 2s is above", func() error {
				return second(session.NewCache(rdb, db, session.Options{IdleTimeout: 2 * time.Second, AbsoluteTimeout: time.Second}))
			}},
			{"IdleTimeout is negative", func() error {
				return second(session.NewCache(rdb, db, session.Options{IdleTimeout: -1}))
			}},
			{"no Database", func() error {
				return second(session.NewCache(rdb, (*store.Store)(nil), session.Options{}))
			}},
		},
		"lock.NewTokenSigner": nil, // and more below
		"lock.New": {
			{"no Redis", panics(func() { lock.New(nil, lock.Options{}) })},
			{"negative MaxHold", panics(func() { lock.New(rdb, lock.Options{MaxHold: -1}) })},
			{"OnRedisDown \"local\" is neither open nor closed", panics(func() {
				lock.New(rdb, lock.Options{OnRedisDown: models.OnRedisDownLocal})
			})},
		},
		"lock.NewTokens": {
			{"no Locker", panics(func() { lock.NewTokens(nil, signer) })},
			{"no TokenSigner", panics(func() { lock.NewTokens(locks, nil) })},
		},
		"ratelimit.New": {
			{"no Redis", panics(func() { ratelimit.New(nil, ratelimit.Options{}) })},
			{"negative MaxKeys", panics(func() { ratelimit.New(rdb, ratelimit.Options{MaxKeys: -1}) })},
		},
		"services.NewProcesses": {
			{"no ProcessStore", func() error {
				return second(services.NewProcesses(nil, locks, signer, long, services.ProcessesOptions{}))
			}},
			{"no ProcessStore", func() error {
				return second(services.NewProcesses((*store.Store)(nil), locks, signer, long, services.ProcessesOptions{}))
			}},
			{"no lock.Locker", func() error { return second(services.NewProcesses(db, nil, signer, long, services.ProcessesOptions{})) }},
			{"no lock.TokenSigner", func() error { return second(services.NewProcesses(db, locks, nil, long, services.ProcessesOptions{})) }},
		},
		"services.NewRecorder": {
			{"no RecordStore", panics(func() { services.NewRecorder(nil, nil) })},
			{"no RecordStore", panics(func() { services.NewRecorder((*store.Store)(nil), nil) })},
		},
		"services.NewAccounts": {
			{"no AccountStore", panics(func() { services.NewAccounts(nil, sessions, locks, limiter, limits) })},
			{"no AccountStore", panics(func() { services.NewAccounts((*store.Store)(nil), sessions, locks, limiter, limits) })},
			{"no session.Cache", panics(func() { services.NewAccounts(db, nil, locks, limiter, limits) })},
			{"no lock.Locker", panics(func() { services.NewAccounts(db, sessions, nil, limiter, limits) })},
			{"no ratelimit.Limiter", panics(func() { services.NewAccounts(db, sessions, locks, nil, limits) })},
			{"policy", panics(func() { services.NewAccounts(db, sessions, locks, limiter, services.AccountsOptions{}) })},
		},
		"ratelimit.NewPolicySet": {{"the name must be", func() error { return second(ratelimit.NewPolicySet(make([]ratelimit.PolicyEntry, 1), nil)) }}},
		"policyfile.Parse":       {{"policies", func() error { return second(policyfile.Parse("", nil, nil)) }}},
		"store.Open":             {{"not the path of a file", func() error { return second(store.Open(t.Context(), store.Options{})) }}},

		"middleware.LookUp": {
			{"no SessionReader", panics(func() { middleware.LookUp(nil) })},
			{"no SessionReader", panics(func() { middleware.LookUp((*session.Cache)(nil)) })},
			{"an option is nil", panics(func() { middleware.LookUp(sessions, nil) })},
		},
		"middleware.LoadSession": {
			{"no SessionReader", panics(func() { middleware.LoadSession(nil, "shop") })},
			{"no SessionReader", panics(func() { middleware.LoadSession((*session.Cache)(nil), "shop") })},
		},
		"middleware.IgnoreActivity": {{"no passive", panics(func() { middleware.IgnoreActivity(nil) })}},
		"middleware.RequireRole":    {{"no role", panics(func() { middleware.RequireRole("") })}},
		"middleware.NewSessionStore": {
			{"no SessionBackend", panics(func() { middleware.NewSessionStore(nil, middleware.SessionStoreOptions{}) })},
			{"no SessionBackend", panics(func() { middleware.NewSessionStore((*session.Cache)(nil), middleware.SessionStoreOptions{}) })},
			{"no name for a cookie", panics(func() { middleware.NewSessionStore(sessions, middleware.SessionStoreOptions{Name: "a b;c"}) })},
		},
		"middleware.Sessions": {
			{"no Store", panics(func() { middleware.Sessions("shop", nil) })},
			{"no Store", panics(func() { middleware.Sessions("shop", (*middleware.SessionStore)(nil)) })},
			{"no name", panics(func() {
				middleware.Sessions("", middleware.NewSessionStore(sessions, middleware.SessionStoreOptions{}))
			})},
		},
		"middleware.RequireLock": {
			{"no LockVerifier", panics(func() {
				middleware.RequireLock(nil, middleware.LockOptions{Resource: func(*gin.Context) string { return "" }})
			})},
			{"no Resource", panics(func() { middleware.RequireLock(lock.NewTokens(locks, signer), middleware.LockOptions{}) })},
		},
		"middleware.RateLimit": {
			{"no Limiter", panics(func() { middleware.RateLimit(nil, middleware.PolicyOf(policy)) })},
			{"no Limiter", panics(func() { middleware.RateLimit((*ratelimit.Limiter)(nil), middleware.PolicyOf(policy)) })},
			{"policy", panics(func() { middleware.RateLimit(limiter, middleware.Policy{}) })},
		},
		"middleware.ShowProblems": {{"no show", panics(func() { middleware.ShowProblems(nil) })}},
		"middleware.LimitBody":    {{"limit", panics(func() { middleware.LimitBody(0) })}, {"limit", panics(func() { middleware.LimitBody(-1) })}},
		"middleware.InNetworks": {
			{"address or a network", panics(func() { middleware.InNetworks("") })},
			{"address or a network", panics(func() { middleware.InNetworks("10.0.0.0/8", "user:42") })},
		},
		"middleware.WarnUntrustedProxy": {{"address or a network", panics(func() { middleware.WarnUntrustedProxy(nil, []string{"x"}) })}},
		"middleware.ByHeader":           {{"no name", panics(func() { middleware.ByHeader("") })}},
		"middleware.SameOrigin":         {{"origin", panics(func() { middleware.SameOrigin("") })}},

		"middleware.FindToken":       nil, // "": no cookie is looked at
		"middleware.Recovery":        nil, // nil: slog.Default
		"middleware.AccessLog":       nil,
		"middleware.Metrics":         nil, // nil: registers nothing
		"middleware.SecurityHeaders": nil, // true or false
	}
	for _, field := range []string{"Processes", "Locks", "Accounts", "Recorder", "Sessions", "Limiter", "Redis", "Database", "Pages", "Cookie", "Metrics", "PublicURL"} {
		all["handlers.New"] = append(all["handlers.New"], wrong{"no " + field, panics(func() {
			options := handlerOptions(t, db, rdb, sessions, locks, limiter)
			reflect.ValueOf(&options).Elem().FieldByName(field).SetZero()
			handlers.New(options)
		})})
	}
	all["handlers.New"] = append(all["handlers.New"],
		wrong{"policy", panics(func() {
			options := handlerOptions(t, db, rdb, sessions, locks, limiter)
			options.Anonymous = models.Policy{}
			handlers.New(options)
		})},
		wrong{"no Database", panics(func() {
			options := handlerOptions(t, db, rdb, sessions, locks, limiter)
			options.Database = (*store.Store)(nil)
			handlers.New(options)
		})},
	)
	for name, make := range map[string]func([]string) error{
		"lock.NewTokenSigner": func(s []string) error { return second(lock.NewTokenSigner(s)) },
		"services.NewProcesses": func(s []string) error {
			return second(services.NewProcesses(db, locks, signer, s, services.ProcessesOptions{}))
		},
		"session.NewCache": func(s []string) error {
			return second(session.NewCache(rdb, db, session.Options{Secrets: s, Logger: quiet}))
		},
	} {
		lists := [][]string{{}, {""}, {"short"}, {strings.Repeat("s", 31)}, {long[0], ""}, {long[0], strings.Repeat("s", 31)}}
		if name != "session.NewCache" { // for which nil is a random one
			lists = append(lists, nil)
		}
		for _, list := range lists {
			all[name] = append(all[name], wrong{"secret", func() error { return make(list) }})
		}
	}
	return all
}

// handlerOptions are options that handlers.New takes.
func handlerOptions(t *testing.T, db *store.Store, rdb *redis.Client, sessions *session.Cache, locks *lock.Locker, limiter *ratelimit.Limiter) handlers.Options {
	t.Helper()
	pages, err := templates.New()
	if err != nil {
		t.Fatal(err)
	}
	policy := models.Policy{Name: "api", Limit: 1, Window: time.Second}
	return handlers.Options{
		Processes: &services.Processes{}, Locks: locks, Accounts: &services.Accounts{}, Recorder: &services.Recorder{}, Sessions: sessions, Limiter: limiter, Redis: rdb,
		Database: db, Pages: pages, Cookie: middleware.NewSessionStore(sessions, middleware.SessionStoreOptions{}),
		Metrics: http.NotFoundHandler(), PublicURL: "https://gate.example", API: policy, Anonymous: policy,
	}
}

func second[T any](_ T, err error) error { return err }
