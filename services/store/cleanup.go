package store

import (
	"context"
	"database/sql"
	"time"
)

const (
	keepLog      = 24 * time.Hour
	keepNetworks = 30 * 24 * time.Hour
)

// CleanUp deletes what no longer has an effect: sessions that were ended or
// whose timeouts have passed, log entries older than 24 hours and networks not
// seen for 30 days, at most limit rows of each. It returns how many rows; call
// it again while that is at least limit.
func (s *Store) CleanUp(ctx context.Context, now time.Time, limit int) (int, error) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	// The search, which may be long, does not hold the lock of SQLite's one writer.
	const dead = `(idle_at <= $1 OR expires_at <= $1 OR NOT (` + unrevoked + `))`
	hashes, err := collect(ctx, s.read, func(row scanner) (hash string, err error) {
		return hash, row.Scan(&hash)
	}, `SELECT hash FROM sessions WHERE `+dead+` LIMIT $2`, now.UnixMicro(), limit)
	if err != nil {
		return 0, failed("clean up", err)
	}
	total := 0
	err = s.transact(ctx, func(tx *sql.Tx) error {
		for _, hash := range hashes {
			n, err := deleted(ctx, tx, `DELETE FROM sessions WHERE hash =
				(SELECT hash FROM sessions WHERE `+dead+` AND hash = $2`+s.skipLocked+`)`, now.UnixMicro(), hash)
			if err != nil {
				return err
			}
			total += n
		}
		// Only the oldest entries, without gaps, also if clocks disagree.
		n, err := deleted(ctx, tx, `DELETE FROM revocations WHERE seq IN (
			SELECT seq FROM revocations WHERE seq < COALESCE(
				(SELECT seq FROM revocations WHERE at >= $1 ORDER BY seq LIMIT 1), (SELECT seq + 1 FROM revocation_head))
			ORDER BY seq LIMIT $2)`, now.Add(-keepLog).UnixMicro(), limit)
		if err != nil {
			return err
		}
		total += n
		n, err = deleted(ctx, tx, `DELETE FROM networks WHERE (user_id, network) IN (
			SELECT user_id, network FROM networks WHERE at < $1 LIMIT $2`+s.skipLocked+`)`, now.Add(-keepNetworks).UnixMicro(), limit)
		total += n
		return err
	})
	if err != nil {
		return 0, failed("clean up", err)
	}
	return total, nil
}

func deleted(ctx context.Context, tx querier, query string, args ...any) (int, error) {
	result, err := tx.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	n, err := result.RowsAffected()
	return int(n), err
}
