package store

import "context"

// Setting returns the stored value of a key. If there is none, initial is
// stored; of several instances that start together, the first one's.
// models.ErrUnavailable if the database could not be asked.
func (s *Store) Setting(ctx context.Context, key, initial string) (_ string, err error) {
	ctx, done := s.writing(ctx)
	defer done(&err)
	_, err = s.write.ExecContext(ctx,
		`INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`, key, initial)
	if err != nil {
		return "", failed("store setting "+key, err)
	}
	var value string
	err = s.write.QueryRowContext(ctx, `SELECT value FROM settings WHERE name = $1`, key).Scan(&value)
	return value, failed("read setting "+key, err)
}
