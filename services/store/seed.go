package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"gatehouse/models"
)

// Seed fills a database that has neither a user nor a process yet, all or nothing,
// with one entry in the audit for each user, and reports whether it was the one to do
// so: of several instances that start together, one is. Of users with the same
// address the first one counts.
func (s *Store) Seed(ctx context.Context, seed models.Seed) (done bool, err error) {
	ctx, end := s.writing(ctx)
	defer end(&err)
	err = failed("fill the database", s.transact(ctx, func(tx *sql.Tx) error {
		if err := takeAdminGuard(ctx, tx); err != nil { // so that instances take turns
			return err
		}
		empty, err := isEmpty(ctx, tx)
		if err != nil || !empty {
			return err
		}
		owner := ""
		for _, user := range seed.Users {
			id, err := s.seedUser(ctx, tx, user)
			if err != nil {
				return err
			}
			if user.Email == seed.Owner {
				owner = id
			}
		}
		for _, fields := range seed.Processes {
			if _, err := s.createProcess(ctx, tx, owner, fields); err != nil {
				return err
			}
		}
		done = true
		return nil
	}))
	return done && err == nil, err
}

// seedUser returns the id of the new user, "" if there is one with this address.
func (s *Store) seedUser(ctx context.Context, tx querier, user models.NewUser) (id string, err error) {
	created, err := s.createUser(ctx, tx, user.Email, user.PasswordHash, user.Roles)
	if errors.Is(err, models.ErrEmailTaken) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return created.ID, insertAudit(ctx, tx, models.AuditEntry{
		At: s.now(), Action: models.AuditUserCreated, Actor: "start", Target: "user:" + created.ID, Detail: created.Email + " as " + strings.Join(user.Roles, ", "),
	})
}
