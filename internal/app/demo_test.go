package app

import (
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

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

// Instances that start together on an empty database make one demo, one
// administrator and one key, and none of them fails.
func TestStartTogether(t *testing.T) {
	t.Parallel()
	for name, urlOf := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { return filepath.Join(t.TempDir(), "test.db") },
		"postgres": func(t *testing.T) string { return servicestest.StartPostgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := urlOf(t)
			var wg sync.WaitGroup
			secrets := make([]string, 2) // hashing passwords takes long, see store.TestSeedAtOnce for many
			for i := range secrets {
				wg.Go(func() {
					var err error
					if secrets[i], err = startOn(t, url); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			db, err := store.Open(t.Context(), store.Options{URL: url, Timeout: servicestest.Patience})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			users, err := db.Users(t.Context(), models.Page{})
			if err != nil {
				t.Fatal(err)
			}
			processes, err := db.Processes(t.Context(), models.ProcessFilter{}, models.Page{})
			if err != nil {
				t.Fatal(err)
			}
			audit, err := db.Audit(t.Context(), models.AuditUserCreated, models.Page{})
			if err != nil {
				t.Fatal(err)
			}
			if len(users.Items) != 5 || len(processes.Items) != 3 || len(audit.Items) != 5 {
				t.Errorf("%d users, %d processes, %d users in the audit; want 5, 3, 5", len(users.Items), len(processes.Items), len(audit.Items))
			}
			if processes.Items[0].UpdatedBy.Email != "alice@example.com" {
				t.Errorf("the demo was written by %+v", processes.Items[0].UpdatedBy)
			}
			for _, secret := range secrets {
				if secret != secrets[0] || secret == "" {
					t.Errorf("the instances have different keys")
				}
			}
		})
	}
}

// startOn is what a start does to the database. It returns the key of the instance.
func startOn(t *testing.T, url string) (secret string, err error) {
	env := map[string]string{"DATABASE_URL": url, "ADMIN_EMAIL": "root@example.com", "ADMIN_PASSWORD": "a long enough password"}
	cfg, err := config.Load(func(name string) string { return env[name] }, "")
	if err != nil {
		return "", err
	}
	db, err := store.Open(t.Context(), store.Options{URL: url, Timeout: servicestest.Patience})
	if err != nil {
		return "", err
	}
	defer db.Close()
	rdb := redis.New(redis.Options{Disabled: true})
	sessions, err := session.NewCache(rdb, db, session.Options{})
	if err != nil {
		return "", err
	}
	defer func() { _ = sessions.Close(t.Context()) }()
	locks, limiter := lock.New(rdb, lock.Options{}), ratelimit.New(rdb, ratelimit.Options{})
	accounts := services.NewAccounts(db, sessions, locks, limiter, services.AccountsOptions{
		LoginByIP: newPolicies(cfg).loginByIP, LoginByAccount: newPolicies(cfg).loginByAccount, Logger: slog.New(slog.DiscardHandler),
	})
	secrets, err := (&app{config: cfg}).secrets(t.Context(), db)
	if err != nil {
		return "", err
	}
	return secrets[0], fillDatabase(t.Context(), cfg, db, accounts)
}
