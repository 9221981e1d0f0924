package services_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/ratelimit"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
	"gatehouse/services/store"
)

const password = "correct horse battery"

// administrator is the second user of an accountsDesk.
var administrator = models.UserRef{ID: "2", Email: "admin@example.com"}

// accountsDesk is one instance with a Redis and a database of its own, in which are the editor
// alice and an administrator.
type accountsDesk struct {
	*services.Accounts
	db       *store.Store
	path     string // of the database
	sessions *session.Cache
	locks    *lock.Locker
	limiter  *ratelimit.Limiter
}

func newAccounts(t *testing.T, loginLimit int64) accountsDesk {
	t.Helper()
	return newAccountsOn(t, servicestest.StartRedis(t), loginLimit)
}

func newAccountsOn(t *testing.T, server *servicestest.RedisServer, loginLimit int64) accountsDesk {
	t.Helper()
	rdb := redistest.New(t, server.Addr)
	a := accountsDesk{path: newDatabase(t), locks: lock.New(rdb, lock.Options{}), limiter: ratelimit.New(rdb, ratelimit.Options{})}
	a.db = openStore(t, a.path)
	a.sessions = must(session.NewCache(rdb, a.db, session.Options{MaxPerUser: 4, Logger: redistest.Quiet()}))
	t.Cleanup(func() {
		if err := a.sessions.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	a.Accounts = a.on(a.db, loginLimits(loginLimit))
	check(t, a.EnsureUser(t.Context(), "alice@example.com", password, models.RoleEditor))
	check(t, a.EnsureUser(t.Context(), "admin@example.com", password, models.RoleAdmin))
	return a
}

// on is the same instance on another view of its database.
func (a accountsDesk) on(db services.AccountStore, opt services.AccountsOptions) *services.Accounts {
	accounts := services.NewAccounts(db, a.sessions, a.locks, a.limiter, opt)
	accounts.CheapPasswords()
	return accounts
}

func loginLimits(limit int64) services.AccountsOptions {
	policy := func(name string) models.Policy { return models.Policy{Name: name, Limit: limit, Window: time.Minute} }
	return services.AccountsOptions{LoginByIP: policy("login-ip"), LoginByAccount: policy("login-account"), Logger: redistest.Quiet()}
}

// allowed reports whether the limits let one more attempt pass.
func (a accountsDesk) allowed(t *testing.T, email, network string) bool {
	t.Helper()
	decisions, err := a.AllowSignIn(t.Context(), email, from(network))
	if err != nil {
		t.Fatal(err)
	}
	return !slices.ContainsFunc(decisions, func(d models.Decision) bool { return !d.Allowed })
}

func from(network string) services.Client { return services.Client{IP: network, Network: network} }

// signIn is alice, from where she usually is.
func (a accountsDesk) signIn(t *testing.T) (token string, current models.Session) {
	t.Helper()
	token, current, err := a.SignIn(t.Context(), "alice@example.com", password, from("192.0.2.1"))
	check(t, err)
	return token, current
}

// live reports whether a token is of a live session.
func (a accountsDesk) live(t *testing.T, token string) bool {
	t.Helper()
	_, err := a.sessions.Get(t.Context(), token)
	if err != nil && !errors.Is(err, models.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

func (a accountsDesk) credentials(t *testing.T, address string) models.Credentials {
	t.Helper()
	return must(a.db.Credentials(t.Context(), address))
}

// audit is what the audit has of an action, newest first.
func (a accountsDesk) audit(t *testing.T, action string) []models.AuditEntry {
	t.Helper()
	return must(a.AuditPage(t.Context(), action, models.Page{Limit: 50})).Items
}
