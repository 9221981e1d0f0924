package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"gatehouse/models"
	"gatehouse/services"
)

// ensureAdmin creates the configured administrator. A user of that address who is
// there already stays as it is. How it differs from what is configured is told in one
// line, or an operator who changed ADMIN_PASSWORD would wait for it to count.
func ensureAdmin(ctx context.Context, config Config, accounts *services.Accounts, log *slog.Logger) error {
	user, right, err := accounts.CheckPassword(ctx, config.AdminEmail, config.AdminPassword)
	if errors.Is(err, models.ErrNotFound) {
		return accounts.EnsureUser(ctx, config.AdminEmail, config.AdminPassword, models.RoleAdmin)
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
