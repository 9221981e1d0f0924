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
