package store

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"gatehouse/internal/background"
	"gatehouse/models"
)

const (
	cleanUpInterval = time.Minute
	cleanUpBatch    = 500
	partsInRound    = 20 // of the sessions, looked at in each interval; a million are 200
	// keepIdle is for which time sessions stay after their idle timeout: an instance may
	// know that one was used, and have failed to write it. For the same reason none are
	// removed until writes have worked for settled.
	keepIdle = 2 * time.Minute
	settled  = time.Minute

	keepLog      = 24 * time.Hour
	keepNetworks = 30 * 24 * time.Hour
	// lookedAt is how many sessions one CleanUpSessions looks at for each that it
	// may delete.
	lookedAt = 10
	// sessionsAtOnce is how many sessions one statement deletes. It always has that many
	// parameters, so that it is prepared once.
	sessionsAtOnce = 50
)

// KeepClean removes what has expired, a batch at a time, until stop is called. Options.Logger
// gets a line about each failure; KeepClean tries again a minute later. stop waits until
// it has ended; if the context of stop ends first, stop returns the cause of that.
func (s *Store) KeepClean() (stop func(context.Context) error) {
	return background.Run(func(life context.Context) {
		after := ""
		for {
			select {
			case <-time.After(cleanUpInterval/2 + rand.N(cleanUpInterval)): // instances take turns by chance
			case <-life.Done():
				return
			}
			var err error
			if after, err = cleanUpRound(life, s, after); err != nil && life.Err() == nil {
				s.writes.log.Warn("expired rows cannot be removed now", "error", err)
			}
		}
	})
}

type cleaner interface {
	CleanUp(ctx context.Context, now time.Time, limit int) (int, error)
	CleanUpSessions(ctx context.Context, now time.Time, after string, limit int) (next string, removed int, err error)
}

// cleanUpRound goes on after a session and returns where it stopped: many sessions take
// several rounds, so that looking for the dead ones stays a small load. A failure there
// does not stop the rest.
func cleanUpRound(ctx context.Context, s cleaner, after string) (string, error) {
	after, sessions := cleanUpParts(ctx, s, after)
	for {
		if n, err := s.CleanUp(ctx, time.Now(), cleanUpBatch); err != nil || n < cleanUpBatch {
			return after, errors.Join(sessions, err)
		}
	}
}

func cleanUpParts(ctx context.Context, s cleaner, after string) (string, error) {
	for parts := 0; parts < partsInRound; {
		next, removed, err := s.CleanUpSessions(ctx, time.Now().Add(-keepIdle), after, cleanUpBatch)
		if err != nil || next == "" {
			return next, err
		}
		after = next
		if removed < cleanUpBatch { // else it stopped early, at the end of a batch
			parts++
		}
	}
	return after, nil
}

// dead is true for sessions that have no effect at time $1.
const dead = `(idle_at <= $1 OR expires_at <= $1 OR NOT (` + unrevoked + `))`

// CleanUpSessions deletes sessions that were ended or whose timeouts have passed,
// at most limit of them. It looks at the ten times limit rows behind the hash
// after ("" is the beginning), and so takes as long with a million sessions as
// with a thousand. It stops when half of its time has passed, so that a slow database
// removes some of them each time. next is where to go on; "" says that it has seen the
// last one. models.ErrUnavailable if the database could not be asked; next is then
// behind those that were removed. It does nothing for a minute after a write was refused.
func (s *Store) CleanUpSessions(ctx context.Context, now time.Time, after string, limit int) (next string, removed int, err error) {
	if !s.writes.workedFor(settled) {
		return after, 0, nil
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	// The search does not hold the lock of SQLite's one writer.
	hashes, next, err := s.deadSessions(ctx, now, clean(after), limit)
	if err != nil {
		return after, 0, failed("clean up sessions", err)
	}
	for chunk := range slices.Chunk(hashes, sessionsAtOnce) {
		n, err := s.deleteDead(ctx, now, chunk)
		if err != nil {
			return after, removed, failed("clean up sessions", err)
		}
		removed += n
		after = chunk[len(chunk)-1]
		if time.Since(began) >= s.timeout/2 && after != hashes[len(hashes)-1] {
			return after, removed, nil
		}
	}
	return next, removed, nil
}

// deleteDead deletes those of at most sessionsAtOnce sessions that still are dead.
func (s *Store) deleteDead(ctx context.Context, now time.Time, hashes []string) (int, error) {
	query := `DELETE FROM sessions WHERE hash IN (SELECT hash FROM sessions WHERE ` + dead + `
		AND hash IN (` + strings.TrimPrefix(numbered(1+sessionsAtOnce), "$1, ") + `)` + s.skipLocked + `)`
	args := []any{now.UnixMicro()}
	for i := range sessionsAtOnce {
		args = append(args, hashes[min(i, len(hashes)-1)])
	}
	return result(ctx, s.change, func(ctx context.Context, q querier) (int, error) {
		return deleted(ctx, q, query, args...)
	})
}

func (s *Store) deadSessions(ctx context.Context, now time.Time, after string, limit int) (hashes []string, next string, err error) {
	ctx, done := s.read.turn(ctx)
	defer done()
	err = s.read.QueryRowContext(ctx, `SELECT hash FROM sessions WHERE hash > $1 ORDER BY hash LIMIT 1 OFFSET $2`,
		after, lookedAt*limit-1).Scan(&next)
	if err := orAnswer(err, nil); err != nil {
		return nil, "", err
	}
	query, args := `SELECT hash FROM sessions WHERE `+dead+` AND hash > $2`, []any{now.UnixMicro(), after}
	if next != "" {
		query, args = query+` AND hash <= $4`, append(args, limit, next)
	} else {
		args = append(args, limit)
	}
	hashes, err = collect(ctx, s.read, func(row scanner) (hash string, err error) {
		return hash, row.Scan(&hash)
	}, query+` ORDER BY hash LIMIT $3`, args...)
	if len(hashes) == limit {
		next = hashes[limit-1] // there may be more before the end of this part
	}
	return hashes, next, err
}

// CleanUp deletes log entries, refusals, ends of locks and settled requests for locks older than 24
// hours, networks not seen for 30 days and audit entries older than Options.AuditRetention, at most
// limit rows of each. It returns how many rows; call it again while that is at least limit.
// models.ErrUnavailable if the database could not be asked.
func (s *Store) CleanUp(ctx context.Context, now time.Time, limit int) (int, error) {
	total, err := result(ctx, s.transact, func(ctx context.Context, q querier) (int, error) {
		total := 0
		for _, old := range []struct {
			kept  time.Duration
			query string
		}{
			// Only the oldest entries, without gaps, also if clocks disagree.
			{keepLog, `DELETE FROM revocations WHERE seq IN (
				SELECT seq FROM revocations WHERE seq < COALESCE(
					(SELECT seq FROM revocations WHERE at >= $1 ORDER BY seq LIMIT 1), (SELECT seq + 1 FROM revocation_head))
				ORDER BY seq LIMIT $2)`},
			{keepNetworks, `DELETE FROM networks WHERE (user_id, network) IN (
				SELECT user_id, network FROM networks WHERE at < $1 LIMIT $2` + s.skipLocked + `)`},
			{s.auditRetention, `DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < $1 ORDER BY at LIMIT $2` + s.skipLocked + `)`},
			{models.KeepRefusals, `DELETE FROM refusals WHERE (request_id, user_id) IN (
				SELECT request_id, user_id FROM refusals WHERE at < $1 ORDER BY at LIMIT $2` + s.skipLocked + `)`},
			{models.KeepRefusals, `DELETE FROM process_versions WHERE id IN (
				SELECT id FROM process_versions WHERE how = 'refused' AND at < $1 ORDER BY at LIMIT $2` + s.skipLocked + `)`},
			{models.KeepLockEnds, `DELETE FROM lock_ends WHERE grant_id IN (
				SELECT grant_id FROM lock_ends WHERE at < $1 ORDER BY at LIMIT $2` + s.skipLocked + `)`},
			{models.KeepLockEnds, `DELETE FROM lock_requests WHERE id IN (
				SELECT id FROM lock_requests WHERE NOT pending AND answered_at < $1 LIMIT $2` + s.skipLocked + `)`},
			// However young they are, there are not more than so many.
			{0, `DELETE FROM lock_ends WHERE grant_id IN (SELECT grant_id FROM lock_ends WHERE at < $1 AND at < COALESCE(
				(SELECT at FROM lock_ends ORDER BY at DESC LIMIT 1 OFFSET ` + strconv.Itoa(keepLockEnds) + `), 0) ORDER BY at LIMIT $2` + s.skipLocked + `)`},
		} {
			n, err := deleted(ctx, q, old.query, now.Add(-old.kept).UnixMicro(), limit)
			if err != nil {
				return 0, err
			}
			total += n
		}
		return total, nil
	})
	return total, failed("clean up", err)
}

func deleted(ctx context.Context, q querier, query string, args ...any) (int, error) {
	result, err := q.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	n, err := result.RowsAffected()
	return int(n), err
}
