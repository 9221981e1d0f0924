package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"gatehouse/internal/config"
	"gatehouse/models"
	"gatehouse/services"
)

// ensureAdmin creates the configured administrator. A user of that address who is
// there already stays as it is. How it differs from what is configured is logged in one
// line, or an operator who changed ADMIN_PASSWORD would wait for it to count.
func ensureAdmin(ctx context.Context, cfg config.Config, accounts *services.Accounts, log *slog.Logger) error {
	user, right, err := accounts.CheckPassword(ctx, cfg.AdminEmail, cfg.AdminPassword)
	if errors.Is(err, models.ErrNotFound) {
		return accounts.EnsureUser(ctx, cfg.AdminEmail, cfg.AdminPassword, models.RoleAdmin)
	}
	if err != nil {
		return err
	}
	var differs []string
	if !right {
		differs = append(differs, "its password is not ADMIN_PASSWORD")
	}
	if user.Disabled {
		differs = append(differs, "it is disabled")
	}
	if !models.HasRole(user.Roles, models.RoleAdmin) {
		differs = append(differs, "it is no administrator")
	}
	if len(differs) > 0 {
		log.WarnContext(ctx, "the user of ADMIN_EMAIL exists and was not changed", "email", user.Email, "differs", strings.Join(differs, "; "))
	}
	return nil
}

// warnInProduction logs what an operator should know about who can sign in, and how. It stops no
// start. empty: there was no user before this one.
func warnInProduction(ctx context.Context, cfg config.Config, empty bool, accounts *services.Accounts, log *slog.Logger) {
	if !cfg.Secure() {
		log.WarnContext(ctx, "PUBLIC_URL is not https: the session cookie can be read on its way", "url", cfg.PublicURL)
	}
	if empty && !cfg.Demo && cfg.AdminEmail == "" {
		log.WarnContext(ctx, "there is no user who could sign in: set ADMIN_EMAIL and ADMIN_PASSWORD, or look whether DATABASE_URL is right")
	}
	var open []string
	for _, demo := range demoUsers() {
		user, right, err := accounts.CheckPassword(ctx, demo.email, demoPassword)
		if err != nil && !errors.Is(err, models.ErrNotFound) {
			log.WarnContext(ctx, "it could not be found out whether users of the demo have its public password", "error", err)
			return
		}
		if right && !user.Disabled {
			open = append(open, demo.email)
		}
	}
	if open != nil {
		log.WarnContext(ctx, "users of the demo have its public password: change it, or delete them", "emails", strings.Join(open, ", "))
	}
}
