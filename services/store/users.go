package store

import (
	"context"
	"slices"
	"strings"

	"gatehouse/models"
	"gatehouse/models/email"
)

const userColumns = `users.id, users.email, users.roles, users.disabled, users.created_at, users.password_hash, users.epoch`

func scanCredentials(row scanner) (models.Credentials, error) {
	var c models.Credentials
	var id, created int64
	var roles string
	err := row.Scan(&id, &c.Email, &roles, &c.Disabled, &created, &c.PasswordHash, &c.Epoch)
	c.ID, c.Roles, c.CreatedAt = formatID(id), splitRoles(roles), micros(created)
	return c, err
}

func splitRoles(roles string) []string {
	if roles == "" {
		return []string{}
	}
	return strings.Split(roles, ",")
}

// stored is an e-mail address as it is stored. Space around it counts: a limit on an
// address must be about the user that is found here.
func stored(address string) string { return strings.ToLower(clean(address)) }

// userByAddress is the id of the user whose address is $1 or, if there is none, has
// the key $2. Users from before addresses had keys may share one: each is found by
// the address as it was stored.
const userByAddress = `(SELECT id FROM users WHERE email = $1 OR email_key = $2
	ORDER BY CASE WHEN email = $1 THEN 0 ELSE 1 END, email_twin LIMIT 1)`

// CreateUser stores a new user. models.ErrEmailTaken if there is one whose address
// is the same by email.Key.
func (s *Store) CreateUser(ctx context.Context, address, passwordHash string, roles []string) (models.User, error) {
	user, err := result(ctx, s.transact, func(ctx context.Context, q querier) (models.User, error) {
		user, err := s.createUser(ctx, q, address, passwordHash, roles)
		auditOf(ctx).about("user:" + user.ID)
		return user, err
	})
	return user, failed("create user", err)
}

func (s *Store) createUser(ctx context.Context, q querier, address, passwordHash string, roles []string) (models.User, error) {
	c, err := scanCredentials(q.QueryRowContext(ctx, `
		INSERT INTO users (email, email_key, password_hash, roles, admin, created_at)
		SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS BOOLEAN), CAST($6 AS BIGINT)
		WHERE NOT EXISTS (SELECT 1 FROM users WHERE email_key = $2)
		ON CONFLICT DO NOTHING RETURNING `+userColumns,
		stored(address), email.Key(stored(address)), passwordHash, strings.Join(roles, ","), slices.Contains(roles, models.RoleAdmin), s.now().UnixMicro()))
	return c.User, orAnswer(err, models.ErrEmailTaken)
}

// User returns the user; models.ErrNotFound if there is none.
func (s *Store) User(ctx context.Context, id string) (models.User, error) {
	c, err := s.CredentialsByID(ctx, id)
	return c.User, err
}

// CredentialsByID returns the user with password hash and epoch, all from one
// row, also if disabled; models.ErrNotFound if there is none.
func (s *Store) CredentialsByID(ctx context.Context, id string) (models.Credentials, error) {
	n, err := parseID(id)
	if err != nil {
		return models.Credentials{}, failed("read user", err)
	}
	ctx, done := s.read.atOnce(ctx)
	defer done()
	c, err := scanCredentials(s.read.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE id = $1`, n))
	return c, failed("read user "+id, orAnswer(err, models.ErrNotFound))
}

// Credentials returns what a sign-in with this address is checked against, all
// from one row, also for a disabled user; models.ErrNotFound if there is none.
func (s *Store) Credentials(ctx context.Context, address string) (models.Credentials, error) {
	ctx, done := s.read.atOnce(ctx)
	defer done()
	c, err := scanCredentials(s.read.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE id = `+userByAddress,
		stored(address), email.Key(stored(address))))
	return c, failed("read user by address", orAnswer(err, models.ErrNotFound))
}

// Users returns a page of all users, oldest first. models.ErrBadCursor if the
// cursor is not one of this list's.
func (s *Store) Users(ctx context.Context, p models.Page) (models.List[models.User], error) {
	after, err := decodeCursor("users", p.Cursor, 0)
	if err != nil {
		return models.List[models.User]{}, failed("list users", err)
	}
	ctx, done := s.read.turn(ctx)
	defer done()
	limit := pageLimit(p)
	rows, err := collect(ctx, s.read, func(row scanner) (keyed[models.User], error) {
		c, err := scanCredentials(row)
		if err != nil {
			return keyed[models.User]{}, err
		}
		n, err := parseID(c.ID)
		return keyed[models.User]{c.User, []int64{n}}, err
	}, `SELECT `+userColumns+` FROM users WHERE id > $1 ORDER BY id LIMIT $2`, after[0], limit+1)
	return page("users", rows, limit), failed("list users", err)
}

// UpdateUser makes the changes named and returns the user as it is then. A new
// password or disabling ends all of the user's sessions; any change writes one
// entry to the revocation log. models.ErrLastAdmin if no user would be left to
// manage users, models.ErrNotFound if there is no such user.
func (s *Store) UpdateUser(ctx context.Context, id string, patch models.UserPatch) (models.User, error) {
	n, err := parseID(id)
	if err != nil {
		return models.User{}, failed("update user", err)
	}
	user, err := result(ctx, s.transact, func(ctx context.Context, q querier) (models.User, error) {
		if mayRemoveAdmin(patch) {
			if err := takeAdminGuard(ctx, q); err != nil {
				return models.User{}, err
			}
		}
		before, err := lockUser(ctx, q, n)
		if err != nil {
			return models.User{}, err
		}
		after, epochs := apply(patch, before)
		if epochs == 0 && after.Disabled == before.Disabled && slices.Equal(after.Roles, before.Roles) {
			return after.User, nil
		}
		if isAdmin(before.User) && !isAdmin(after.User) {
			if err := requireOtherAdmin(ctx, q, n); err != nil {
				return models.User{}, err
			}
		}
		_, err = q.ExecContext(ctx, `
			UPDATE users SET password_hash = $2, roles = $3, admin = $4, disabled = $5, epoch = epoch + $6 WHERE id = $1`,
			n, after.PasswordHash, strings.Join(after.Roles, ","), slices.Contains(after.Roles, models.RoleAdmin), after.Disabled, epochs)
		if err != nil {
			return models.User{}, err
		}
		return after.User, s.log(ctx, q, models.Revocation{UserID: id})
	})
	return user, failed("update user "+id, err)
}

// RenewPasswordHash replaces a user's hash by another one of the same password, if it
// is still the one that was read. Sessions and epoch stay. It does nothing otherwise.
func (s *Store) RenewPasswordHash(ctx context.Context, userID, read, renewed string) error {
	n, err := parseID(userID)
	if err != nil {
		return nil
	}
	err = s.change(ctx, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, `UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2`, n, read, renewed)
		return err
	})
	return failed("renew the password hash of user "+userID, err)
}

// DeleteUser deletes the user and the user's sessions, with one entry in the
// revocation log. The processes that the user wrote stay. models.ErrLastAdmin
// if no user would be left to manage users, models.ErrNotFound if there is no
// such user.
func (s *Store) DeleteUser(ctx context.Context, id string) error {
	n, err := parseID(id)
	if err != nil {
		return failed("delete user", err)
	}
	err = s.transact(ctx, func(ctx context.Context, q querier) error {
		if err := takeAdminGuard(ctx, q); err != nil {
			return err
		}
		user, err := lockUser(ctx, q, n)
		if err != nil {
			return err
		}
		if isAdmin(user.User) {
			if err := requireOtherAdmin(ctx, q, n); err != nil {
				return err
			}
		}
		for _, query := range []string{
			`DELETE FROM users WHERE id = $1`,
			`DELETE FROM orphaned_drafts WHERE user_id = $1`, // last: no draft of the user becomes one any more
		} {
			if _, err := q.ExecContext(ctx, query, n); err != nil {
				return err
			}
		}
		return s.log(ctx, q, models.Revocation{UserID: id})
	})
	return failed("delete user "+id, err)
}

// apply returns the user after the change, and how much the epoch grows: 1 for
// a new password or disabling.
func apply(patch models.UserPatch, to models.Credentials) (models.Credentials, int) {
	epochs := 0
	if patch.Roles != nil {
		to.Roles = slices.Clone(patch.Roles)
	}
	if patch.PasswordHash != nil {
		to.PasswordHash, epochs = *patch.PasswordHash, 1
	}
	if patch.Disabled != nil {
		if *patch.Disabled && !to.Disabled {
			epochs = 1
		}
		to.Disabled = *patch.Disabled
	}
	return to, epochs
}

func isAdmin(user models.User) bool {
	return !user.Disabled && slices.Contains(user.Roles, models.RoleAdmin)
}

func mayRemoveAdmin(patch models.UserPatch) bool {
	return (patch.Disabled != nil && *patch.Disabled) || (patch.Roles != nil && !slices.Contains(patch.Roles, models.RoleAdmin))
}

// takeAdminGuard lets transactions that may remove an administrator take
// turns, so that two cannot each rely on the one the other removes.
func takeAdminGuard(ctx context.Context, tx querier) error {
	_, err := tx.ExecContext(ctx, `UPDATE admin_guard SET turns = turns + 1`)
	return err
}

// requireOtherAdmin returns models.ErrLastAdmin if no user but n can manage
// users. The caller holds the guard.
func requireOtherAdmin(ctx context.Context, tx querier, n int64) error {
	var others bool
	err := tx.QueryRowContext(ctx,
		`SELECT EXISTS (SELECT 1 FROM users WHERE admin AND NOT disabled AND id <> $1)`, n).Scan(&others)
	if err == nil && !others {
		return models.ErrLastAdmin
	}
	return err
}

// lockUser reads the user and keeps others from changing it until the
// transaction ends. A write that changes nothing is what both databases know.
func lockUser(ctx context.Context, tx querier, n int64) (models.Credentials, error) {
	c, err := scanCredentials(tx.QueryRowContext(ctx, `UPDATE users SET epoch = epoch WHERE id = $1 RETURNING `+userColumns, n))
	return c, orAnswer(err, models.ErrNotFound)
}
