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
