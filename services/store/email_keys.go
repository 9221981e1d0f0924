package store

import (
	"context"
	"database/sql"
	"log/slog"

	"gatehouse/models/email"
)

// keyAddresses computes the keys of addresses that have none: those outside ASCII of
// users from before there were keys, or of an older instance. Of users who share a key
// the first keeps it, and all are found by their address as it was stored; new ones
// with that key are refused. The caller keeps others from creating users meanwhile.
func keyAddresses(ctx context.Context, db querier, log *slog.Logger) error {
	type user struct {
		id      int64
		address string
	}
	users, err := collect(ctx, db, func(row scanner) (u user, err error) {
		err = row.Scan(&u.id, &u.address)
		return u, err
	}, `SELECT id, email FROM users WHERE email_key IS NULL ORDER BY id`)
	if err != nil {
		return err
	}
	var twins []int64
	for _, u := range users {
		var twin int64
		err := db.QueryRowContext(ctx, `
			UPDATE users SET email_key = $2, email_twin = CASE WHEN EXISTS (SELECT 1 FROM users WHERE email_key = $2) THEN id ELSE 0 END
			WHERE id = $1 RETURNING email_twin`, u.id, email.Key(u.address)).Scan(&twin)
		if err != nil {
			return err
		}
		if twin != 0 {
			twins = append(twins, u.id)
		}
	}
	if len(twins) > 0 {
		log.Warn("users have addresses that count as the same as another user's: each is found by the address exactly as it is; "+
			"better delete one of each", "users", twins)
	}
	return nil
}

// keyAddressesPostgres is keyAddresses while no other instance creates a user.
func keyAddressesPostgres(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	var some bool
	if err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM users WHERE email_key IS NULL)`).Scan(&some); err != nil || !some {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // without effect after Commit
	if _, err := tx.ExecContext(ctx, `LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE`); err != nil {
		return err
	}
	if err := keyAddresses(ctx, tx, log); err != nil {
		return err
	}
	return tx.Commit()
}
