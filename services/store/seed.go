package store

import (
	"context"
	"errors"
	"strings"

	"gatehouse/models"
)

// Seed fills a database that has neither a user nor a process yet, all or nothing,
// with one entry in the audit for each user, and reports whether it was the one to do
// so: of several instances that start together, one is. Of users with the same
// address the first one counts.
func (s *Store) Seed(ctx context.Context, seed models.Seed) (bool, error) {
	done, err := result(ctx, s.transact, func(ctx context.Context, q querier) (done bool, err error) {
		if err := takeAdminGuard(ctx, q); err != nil { // so that instances take turns
			return false, err
		}
		empty, err := isEmpty(ctx, q)
		if err != nil || !empty {
			return false, err
		}
		owner := ""
		for _, user := range seed.Users {
			id, err := s.seedUser(ctx, q, user)
			if err != nil {
				return false, err
			}
			if user.Email == seed.Owner {
				owner = id
			}
		}
		for _, fields := range seed.Processes {
			if _, err := s.createProcess(ctx, q, owner, fields); err != nil {
				return false, err
			}
		}
		return true, nil
	})
	return done, failed("fill the database", err)
}

// seedUser returns the id of the new user, "" if there is one with this address.
func (s *Store) seedUser(ctx context.Context, q querier, user models.NewUser) (id string, err error) {
	created, err := s.createUser(ctx, q, user.Email, user.PasswordHash, user.Roles)
	if errors.Is(err, models.ErrEmailTaken) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return created.ID, insertAudit(ctx, q, models.AuditEntry{
		At: s.now(), Action: models.AuditUserCreated, Actor: "start", Target: "user:" + created.ID, Detail: created.Email + " as " + strings.Join(user.Roles, ", "),
	})
}
