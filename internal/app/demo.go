package app

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"gatehouse/internal/config"
	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/store"
)

const demoPassword = "gatehouse-demo"

type demoUser struct {
	email string
	role  string
}

func demoUsers() []demoUser {
	return []demoUser{
		{"admin@example.com", models.RoleAdmin}, {"alice@example.com", models.RoleEditor},
		{"bob@example.com", models.RoleEditor}, {"viewer@example.com", models.RoleViewer},
	}
}

// fillDatabase stores the demo in an empty database, if it is wanted, and creates the
// configured administrator.
func fillDatabase(ctx context.Context, cfg config.Config, db *store.Store, accounts *services.Accounts) error {
	empty, err := db.Empty(ctx)
	if err != nil {
		return err
	}
	if empty && cfg.Demo {
		seed, passwords := demo(cfg)
		if err := accounts.Seed(ctx, seed, passwords); err != nil {
			return err
		}
	}
	if cfg.AdminEmail != "" {
		if err := ensureAdmin(ctx, cfg, accounts, slog.Default()); err != nil {
			return err
		}
	}
	if cfg.Production() {
		warnInProduction(ctx, cfg, empty, accounts, slog.Default())
	}
	return nil
}

// demo has the configured administrator in it. If that user were stored first, an instance
// that starts at the same time would find the database not empty, and make no demo.
func demo(cfg config.Config) (models.Seed, map[string]string) {
	seed, passwords := models.Seed{Owner: demoUsers()[1].email}, map[string]string{}
	for _, user := range demoUsers() {
		seed.Users = append(seed.Users, models.NewUser{Email: user.email, Roles: []string{user.role}})
		passwords[user.email] = demoPassword
	}
	if cfg.AdminEmail != "" {
		admin := models.NewUser{Email: cfg.AdminEmail, Roles: []string{models.RoleAdmin}}
		seed.Users = slices.DeleteFunc(seed.Users, func(user models.NewUser) bool { return user.Email == admin.Email })
		seed.Users = append(seed.Users, admin)
		passwords[admin.Email] = cfg.AdminPassword
	}
	seed.Processes = []models.ProcessFields{
		{Title: "Order paper", Status: "active", Description: "Ten boxes, before the end of the month."},
		{Title: "Hire a gardener", Status: "draft", Description: "The roses need an expert."},
		{Title: "Repair the gate", Status: "paused", Description: "Waiting for the hinge."},
	}
	return seed, passwords
}

// printWelcome says on the console where everything is, in development.
func (a *app) printWelcome() {
	url := a.config.PublicURL
	if a.config.Production() {
		a.log.Info("serving", "addr", a.listener.Addr().String(), "url", url)
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\ngatehouse is running\n\n  Page       %s/\n  API        %s/api/v1\n  Swagger    %s/swagger/index.html\n  Health     %s/readyz\n", url, url, url, url)
	if a.config.Demo {
		fmt.Fprintf(&b, "\n  Demo accounts (password %s, unless you changed it)\n", demoPassword)
		for _, user := range demoUsers() {
			fmt.Fprintf(&b, "    %-20s %s\n", user.email, user.role)
		}
	}
	if a.config.EmbeddedRedis() {
		b.WriteString("\n  !! EMBEDDED REDIS: locks, limits and waiting are NOT SHARED between processes.\n  !! Set REDIS_URL before you run a second one.\n")
	}
	b.WriteString("\n")
	_, _ = fmt.Fprint(a.stdout, b.String()) // the console is a courtesy
}
