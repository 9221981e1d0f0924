package store

import "context"

// Setting returns the stored value of a key. If there is none, initial is
// stored; of several instances that start together, the first one's.
// models.ErrUnavailable if the database could not be asked.
func (s *Store) Setting(ctx context.Context, key, initial string) (string, error) {
	value, err := result(ctx, s.change, func(ctx context.Context, q querier) (value string, err error) {
		_, err = q.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, key, initial)
		if err != nil {
			return "", err
		}
		err = q.QueryRowContext(ctx, `SELECT value FROM settings WHERE name = $1`, key).Scan(&value)
		return value, err
	})
	return value, failed("store setting "+key, err)
}
