package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/internal/config"
	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/ratelimit"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
	"gatehouse/services/store"
)

// The configured administrator is created once. One that is there stays as it is, and
// one line says how it differs, without any password or hash.
func TestEnsureAdmin(t *testing.T) {
	t.Parallel()
	db, accounts := accountsAlone(t)
	const first, second = "the first password", "the second password"
	ensure := func(password string) string {
		t.Helper()
		var log bytes.Buffer
		cfg := config.Config{AdminEmail: "root@example.com", AdminPassword: password}
		if err := ensureAdmin(t.Context(), cfg, accounts, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(log.String(), "the first") || strings.Contains(log.String(), "the second") || strings.Contains(log.String(), "argon2") {
			t.Errorf("the log tells: %s", &log)
		}
		return log.String()
	}
	if told := ensure(first) + ensure(first); told != "" {
		t.Errorf("created, and again: %s", told)
	}
	root, err := db.Credentials(t.Context(), "root@example.com")
	if err != nil || !models.HasRole(root.Roles, models.RoleAdmin) {
		t.Fatalf("%+v, %v", root.User, err)
	}
	quick := servicestest.QuickHash(first)
	if _, err := db.UpdateUser(t.Context(), root.ID, models.UserPatch{PasswordHash: &quick}); err != nil {
		t.Fatal(err)
	}
	if _, err := db.CreateUser(t.Context(), "other@example.com", "hash", []string{models.RoleAdmin}); err != nil { // not the last one
		t.Fatal(err)
	}
	yes, unusable := true, "$argon2id$v=16$m=8,t=1,p=1$AAAA$AAAA"
	for _, step := range []struct {
		change   models.UserPatch
		password string
		says     []string
	}{
		{models.UserPatch{}, second, []string{"its password is not ADMIN_PASSWORD"}},
		{models.UserPatch{Roles: []string{models.RoleEditor}}, first, []string{"it is no administrator"}},
		{models.UserPatch{Disabled: &yes}, second, []string{"its password is not ADMIN_PASSWORD", "it is disabled", "it is no administrator"}},
		{models.UserPatch{PasswordHash: &unusable}, first, []string{"its password is not ADMIN_PASSWORD", "it is disabled", "it is no administrator"}},
	} {
		if _, err := db.UpdateUser(t.Context(), root.ID, step.change); err != nil {
			t.Fatal(err)
		}
		before, err := db.CredentialsByID(t.Context(), root.ID)
		if err != nil {
			t.Fatal(err)
		}
		told := ensure(step.password)
		if strings.Count(told, "\n") != 1 || !strings.Contains(told, `differs="`+strings.Join(step.says, "; ")+`"`) || !strings.Contains(told, "root@example.com") {
			t.Errorf("the log says %q, want %q", told, step.says)
		}
		if after, err := db.CredentialsByID(t.Context(), root.ID); err != nil || after.PasswordHash != before.PasswordHash || after.Epoch != before.Epoch || after.Disabled != before.Disabled {
			t.Errorf("changed: %+v, %v", after, err)
		}
	}
}

// accountsAlone are the accounts of an empty database, without Redis.
func accountsAlone(t *testing.T) (*store.Store, *services.Accounts) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	db, err := store.Open(t.Context(), store.Options{URL: filepath.Join(t.TempDir(), "test.db"), Timeout: time.Minute, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.New(redis.Options{Disabled: true, Logger: quiet})
	sessions, err := session.NewCache(rdb, db, session.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		if err := errors.Join(sessions.Close(ctx), rdb.Close(ctx), db.Close()); err != nil {
			t.Error(err)
		}
	})
	policy := models.Policy{Name: "login", Limit: 1, Window: time.Second}
	accounts := services.NewAccounts(db, sessions, lock.New(rdb, lock.Options{}), ratelimit.New(rdb, ratelimit.Options{}),
		services.AccountsOptions{LoginByIP: policy, LoginByAccount: policy, Logger: quiet})
	return db, accounts
}

// A start in production warns of users who should not be able to sign in, and if there is none.
func TestProductionWarns(t *testing.T) {
	t.Parallel()
	db, accounts := accountsAlone(t)
	warned := func(env map[string]string, empty bool) string {
		t.Helper()
		env["APP_ENV"], env["REDIS_ENABLED"], env["SECRET_KEY"] = "production", "false", strings.Repeat("k", 32)
		cfg, err := config.Load(func(name string) string { return env[name] }, "")
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		warnInProduction(t.Context(), cfg, empty, accounts, slog.New(slog.NewTextHandler(&log, nil)))
		return log.String()
	}
	https := func() map[string]string { return map[string]string{"PUBLIC_URL": "https://gatehouse.example.com"} }
	if got := warned(https(), true); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "no user who could sign in") {
		t.Errorf("on an empty database: %q", got)
	}
	hash := servicestest.QuickHash(demoPassword)
	alice, err := db.CreateUser(t.Context(), "alice@example.com", hash, []string{models.RoleEditor})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.CreateUser(t.Context(), "bob@example.com", servicestest.QuickHash("another password"), nil); err != nil {
		t.Fatal(err)
	}
	if got := warned(https(), false); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "emails=alice@example.com") {
		t.Errorf("with a user of the demo: %q", got)
	}
	yes := true
	if _, err := db.UpdateUser(t.Context(), alice.ID, models.UserPatch{Disabled: &yes}); err != nil {
		t.Fatal(err)
	}
	if got := warned(https(), false); got != "" {
		t.Errorf("when that is disabled: %q", got)
	}
	if got := warned(map[string]string{}, false); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "PUBLIC_URL is not https") {
		t.Errorf("without https: %q", got)
	}
}
