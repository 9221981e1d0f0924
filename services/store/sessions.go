package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"gatehouse/models"
)

// unrevoked is true for the rows of sessions that were not ended: their era and their user's
// epoch are still the current ones. Timeouts are checked apart.
//
// In PostgreSQL a change of a session that waits until all others have been ended does not find
// it: era and epoch are then read as they were before. So a call about one session that finds
// nothing tries once more.
const unrevoked = ` sessions.era = (SELECT era FROM revocation_head) AND (sessions.user_id IS NULL OR EXISTS (
	SELECT 1 FROM users AS owner WHERE owner.id = sessions.user_id AND owner.epoch = sessions.epoch AND NOT owner.disabled))`

const selectSession = `SELECT sessions.hash, sessions.id, COALESCE(sessions.user_id, 0), COALESCE(users.email, ''), COALESCE(users.roles, ''),
	sessions.epoch, sessions.data, sessions.version, sessions.created_at, sessions.last_seen, sessions.idle_at, sessions.expires_at,
	sessions.user_agent, sessions.ip
	FROM sessions LEFT JOIN users ON users.id = sessions.user_id`

// Queries about one session or one user are answered by an index, however many
// sessions there are: sessions_plan_test.go holds these to it.
const (
	oneSession     = selectSession + ` WHERE sessions.hash = $1 AND sessions.idle_at > $2 AND sessions.expires_at > $2 AND` + unrevoked
	sessionsOfUser = selectSession + ` WHERE sessions.user_id = $1 AND sessions.idle_at > $2 AND sessions.expires_at > $2 AND` + unrevoked + `
		ORDER BY sessions.created_at DESC, sessions.hash`
)

// countOf is the count for so many users, with the time as the last argument.
func countOf(users int) string {
	now := fmt.Sprintf("$%d", users+1)
	return `SELECT user_id, COUNT(*) FROM sessions WHERE user_id IN (` + numbered(users) + `) AND idle_at > ` + now + ` AND expires_at > ` + now + ` AND` +
		unrevoked + ` GROUP BY user_id`
}

func scanSession(row scanner) (models.Session, error) {
	var x models.Session
	var user, created, seen, idle, expires int64
	var roles string
	err := row.Scan(&x.Hash, &x.ID, &user, &x.User.Email, &roles, &x.Epoch, &x.Data, &x.Version,
		&created, &seen, &idle, &expires, &x.UserAgent, &x.IP)
	x.Roles = splitRoles(roles)
	x.CreatedAt, x.LastSeen, x.IdleAt, x.ExpiresAt = micros(created), micros(seen), micros(idle), micros(expires)
	if user != 0 {
		x.User.ID = formatID(user)
	}
	if len(x.Data) == 0 {
		x.Data = nil
	}
	return x, err
}

// InsertSession stores a new session, if the user is enabled and the user's
// epoch is still that of the session, which the caller read in the same row as
// the password; otherwise models.ErrStale. User.ID "" is an anonymous session. If
// the user then has more than maxPerUser live sessions, the oldest others end,
// with one entry each in the revocation log, and are counted; 0 is no limit.
func (s *Store) InsertSession(ctx context.Context, x models.Session, maxPerUser int) (ended int, err error) {
	if x.User.ID == "" {
		return 0, failed("insert session", s.change(ctx, func(ctx context.Context, q querier) error { return insertSession(ctx, q, nil, x) }))
	}
	user, err := parseID(x.User.ID)
	if err != nil {
		return 0, failed("insert session", noUser(strconv.Quote(x.User.ID)))
	}
	ended, err = result(ctx, s.transact, func(ctx context.Context, q querier) (int, error) {
		// With the row locked, the epoch cannot change before the session is
		// there, and sign-ins of one user take turns: two at once would exceed
		// the limit.
		owner, err := lockUser(ctx, q, user)
		switch {
		case errors.Is(err, models.ErrNotFound):
			return 0, noUser(x.User.ID)
		case err != nil:
			return 0, err
		case owner.Disabled || owner.Epoch != x.Epoch:
			return 0, models.ErrStale
		}
		if err := insertSession(ctx, q, &user, x); err != nil {
			return 0, err
		}
		oldest, err := s.endOldest(ctx, q, user, x.Hash, maxPerUser)
		if err != nil {
			return 0, err
		}
		if len(oldest) > 0 {
			auditOf(ctx).also(models.AuditSessionRevoked, fmt.Sprintf("%d beyond the limit of sessions at once, the oldest", len(oldest)))
		}
		return len(oldest), s.log(ctx, q, oldest...)
	})
	return ended, failed("insert session of user "+x.User.ID, err)
}

// noUser is the models.ErrStale of a user who has been deleted, or never was in this database.
func noUser(id string) error { return fmt.Errorf("no user %s in the store: %w", id, models.ErrStale) }

func insertSession(ctx context.Context, q querier, user *int64, x models.Session) error {
	_, err := q.ExecContext(ctx, `INSERT INTO sessions
		(hash, id, user_id, epoch, data, version, created_at, last_seen, idle_at, expires_at, user_agent, ip, era)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, (SELECT era FROM revocation_head))`,
		x.Hash, x.ID, user, x.Epoch, x.Data, x.Version, x.CreatedAt.UnixMicro(), x.LastSeen.UnixMicro(),
		x.IdleAt.UnixMicro(), x.ExpiresAt.UnixMicro(), clean(x.UserAgent), clean(x.IP))
	return err
}

// endOldest deletes the user's oldest live sessions beyond most, never the one
// to keep, and returns their log entries.
func (s *Store) endOldest(ctx context.Context, q querier, user int64, keep string, most int) ([]models.Revocation, error) {
	if most <= 0 {
		return nil, nil
	}
	const all = 1_000_000_000 // an offset needs a limit in SQLite
	return collect(ctx, q, func(row scanner) (models.Revocation, error) {
		var ended models.Revocation
		return ended, row.Scan(&ended.SessionHash)
	}, `DELETE FROM sessions WHERE hash IN (
			SELECT hash FROM sessions
			 WHERE user_id = $1 AND hash <> $2 AND idle_at > $3 AND expires_at > $3 AND`+unrevoked+`
			 ORDER BY created_at DESC, hash LIMIT $4 OFFSET $5)
		RETURNING hash`, user, keep, s.now().UnixMicro(), all, most-1)
}

// Session returns the live session with this hash and its user's address and
// roles; models.ErrNotFound if there is none, or it was ended, or one of its
// timeouts has passed.
func (s *Store) Session(ctx context.Context, hash string, now time.Time) (models.Session, error) {
	ctx, done := s.read.atOnce(ctx)
	defer done()
	x, err := scanSession(s.read.QueryRowContext(ctx, oneSession, clean(hash), now.UnixMicro()))
	return x, failed("read session", orAnswer(err, models.ErrNotFound))
}

// SessionsOf returns the live sessions of a user, newest first.
func (s *Store) SessionsOf(ctx context.Context, userID string, now time.Time) ([]models.Session, error) {
	user, err := parseID(userID)
	if err != nil {
		return []models.Session{}, nil
	}
	ctx, done := s.read.turn(ctx)
	defer done()
	list, err := collect(ctx, s.read, scanSession, sessionsOfUser, user, now.UnixMicro())
	return list, failed("list sessions of user "+userID, err)
}

// CountSessions returns the numbers of live sessions of users; a user without any is left out.
func (s *Store) CountSessions(ctx context.Context, userIDs []string, now time.Time) (map[string]int, error) {
	var args []any
	for _, id := range userIDs {
		if user, err := parseID(id); err == nil {
			args = append(args, user)
		}
	}
	counts := map[string]int{}
	if len(args) == 0 {
		return counts, nil
	}
	ctx, done := s.read.turn(ctx)
	defer done()
	_, err := collect(ctx, s.read, func(row scanner) (struct{}, error) {
		var user int64
		var n int
		err := row.Scan(&user, &n)
		counts[formatID(user)] = n
		return struct{}{}, err
	}, countOf(len(args)), append(args, now.UnixMicro())...)
	return counts, failed("count sessions", err)
}

// TouchSessions moves the idle timeouts of live sessions, in one write. Their rows were not
// idle at Since; between Since and LastSeen the caller knows that they were not. Neither time
// ever goes back. It returns the hashes that it wrote. The others are not live, or another
// transaction is changing them now; for that, a single one is waited for.
func (s *Store) TouchSessions(ctx context.Context, seen []models.Activity) (written []string, err error) {
	if len(seen) == 0 {
		return nil, nil
	}
	skip := ""
	if len(seen) > 1 {
		skip = s.skipLocked
	}
	rows := make([]string, len(seen))
	var args []any
	for i, a := range seen {
		rows[i] = fmt.Sprintf("(CAST($%d AS TEXT), CAST($%d AS BIGINT), CAST($%d AS BIGINT), CAST($%d AS BIGINT))", 4*i+1, 4*i+2, 4*i+3, 4*i+4)
		args = append(args, clean(a.Hash), a.Since.UnixMicro(), a.LastSeen.UnixMicro(), a.IdleAt.UnixMicro())
	}
	touch := func(ctx context.Context, q querier) ([]string, error) {
		return collect(ctx, q, func(row scanner) (hash string, err error) {
			return hash, row.Scan(&hash)
		}, `WITH used (hash, since, at, idle) AS (VALUES `+strings.Join(rows, ", ")+`),
			   free AS (SELECT hash FROM sessions WHERE hash IN (SELECT hash FROM used)`+skip+`)
			UPDATE sessions
			   SET last_seen = CASE WHEN last_seen < used.at THEN used.at ELSE last_seen END,
			       idle_at = CASE WHEN idle_at < used.idle THEN used.idle ELSE idle_at END
			  FROM used
			 WHERE sessions.hash = used.hash AND sessions.hash IN (SELECT hash FROM free)
			   AND idle_at > used.since AND expires_at > used.at AND`+unrevoked+`
			RETURNING sessions.hash`, args...)
	}
	written, err = result(ctx, s.change, touch)
	if err == nil && len(written) == 0 && len(seen) == 1 {
		written, err = result(ctx, s.change, touch) // see unrevoked
	}
	return written, failed("touch sessions", err)
}

// SaveSessionData replaces the data of a live session, if its version is still
// the one given, and returns the new version. models.ErrStale if it is not,
// models.ErrNotFound if the session is not live: nothing brings one back.
func (s *Store) SaveSessionData(ctx context.Context, hash string, version int64, data []byte) (int64, error) {
	now := s.now()
	err := s.change(ctx, func(ctx context.Context, q querier) error {
		result, err := q.ExecContext(ctx, `UPDATE sessions SET data = $3, version = version + 1
			 WHERE hash = $1 AND version = $2 AND idle_at > $4 AND expires_at > $4 AND`+unrevoked,
			clean(hash), version, data, now.UnixMicro())
		err = affected(result, err, models.ErrStale)
		if errors.Is(err, models.ErrStale) {
			if _, readErr := scanSession(q.QueryRowContext(ctx, oneSession, clean(hash), now.UnixMicro())); readErr != nil {
				err = orAnswer(readErr, models.ErrNotFound) // ended, not merely changed
			}
		}
		return err
	})
	if err != nil {
		return 0, failed("save session data", err)
	}
	return version + 1, nil
}
