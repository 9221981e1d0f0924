package store

import (
	"context"
	"time"

	"gatehouse/models/email"
)

// RememberNetwork notes that the user signed in from a network at a time. It
// does nothing if there is no such user. models.ErrUnavailable if it could not be written.
func (s *Store) RememberNetwork(ctx context.Context, userID, network string, at time.Time) error {
	user, err := parseID(userID)
	if err != nil {
		return nil
	}
	err = s.change(ctx, func(ctx context.Context, q querier) error {
		_, err := q.ExecContext(ctx, `
			INSERT INTO networks (user_id, network, at) SELECT id, CAST($2 AS TEXT), CAST($3 AS BIGINT) FROM users WHERE id = $1
			ON CONFLICT (user_id, network) DO UPDATE SET at = CASE WHEN networks.at < excluded.at THEN excluded.at ELSE networks.at END`,
			user, clean(network), at.UnixMicro())
		return err
	})
	return failed("remember network of user "+userID, err)
}

// KnownNetwork reports whether the user with this address signed in from the
// network since then; false if there is no such user. models.ErrUnavailable if the database
// could not be asked.
func (s *Store) KnownNetwork(ctx context.Context, address, network string, since time.Time) (bool, error) {
	ctx, done := s.read.atOnce(ctx)
	defer done()
	var known bool
	err := s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM networks
		WHERE user_id = `+userByAddress+` AND network = $3 AND at >= $4)`,
		stored(address), email.Key(stored(address)), clean(network), since.UnixMicro()).Scan(&known)
	return known, failed("look up network", err)
}
