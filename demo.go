package main

import (
	"context"
	"fmt"
	"strings"

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

// fillDatabase creates the configured administrator, and in an empty database
// the demo users and processes if they are wanted.
func fillDatabase(ctx context.Context, config Config, db *store.Store, accounts *services.Accounts, processes *services.Processes) error {
	empty, err := db.Empty(ctx)
	if err != nil {
		return err
	}
	if config.AdminEmail != "" {
		if err := accounts.EnsureUser(ctx, config.AdminEmail, config.AdminPassword, models.RoleAdmin); err != nil {
			return err
		}
	}
	if !empty || !config.Demo {
		return nil
	}
	for _, user := range demoUsers() {
		if err := accounts.EnsureUser(ctx, user.email, demoPassword, user.role); err != nil {
			return err
		}
	}
	owner, err := db.Credentials(ctx, demoUsers()[1].email)
	if err != nil {
		return err
	}
	for _, fields := range []models.ProcessFields{
		{Title: "Order paper", Status: "active", Description: "Ten boxes, before the end of the month."},
		{Title: "Hire a gardener", Status: "draft", Description: "The roses need somebody who knows them."},
		{Title: "Repair the gate", Status: "paused", Description: "Waiting for the hinge."},
	} {
		if _, err := processes.Create(ctx, models.UserRef{ID: owner.ID, Email: owner.Email}, fields); err != nil {
			return err
		}
	}
	return nil
}

// printWelcome tells where everything is, on the console in development.
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
