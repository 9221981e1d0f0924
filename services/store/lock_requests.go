package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"gatehouse/models"
)

const lockRequestColumns = `r.id, r.process_id, r.user_id, users.email, r.state, r.message, r.reply, r.asked_at, r.seen_at, r.answer_by,
	COALESCE(r.answered_at, 0), r.holder_grant, COALESCE(r.grant_id, ''), COALESCE(r.fetch_by, 0), r.fetched`

const fromLockRequests = ` FROM lock_requests AS r JOIN users ON users.id = r.user_id `

func scanLockRequest(row scanner) (models.LockRequest, error) {
	var r models.LockRequest
	var process, user, asked, seen, answerBy, answered, fetchBy int64
	err := row.Scan(&r.ID, &process, &user, &r.By.Email, &r.State, &r.Message, &r.Reply, &asked, &seen, &answerBy,
		&answered, &r.HolderGrant, &r.Grant, &fetchBy, &r.Fetched)
	r.ProcessID, r.By.ID, r.At, r.SeenAt, r.AnswerBy = formatID(process), formatID(user), micros(asked), micros(seen), micros(answerBy)
	if answered != 0 {
		r.AnsweredAt = micros(answered)
	}
	if fetchBy != 0 {
		r.FetchBy = micros(fetchBy)
	}
	return r, err
}

// AskForLock stores a new request, or returns the one that is pending of the same user for the same
// process; then created is false, and what WithAudit has is left out. models.ErrNotFound if there
// is no such process or user.
func (s *Store) AskForLock(ctx context.Context, r models.LockRequest) (stored models.LockRequest, created bool, err error) {
	process, err := parseID(r.ProcessID)
	if err != nil {
		return r, false, failed("ask for a lock", err)
	}
	type answer struct {
		stored  models.LockRequest
		created bool
	}
	asked, err := result(ctx, s.transact, func(ctx context.Context, q querier) (a answer, err error) {
		a.created, err = changes(q.ExecContext(ctx, `
			INSERT INTO lock_requests (id, process_id, user_id, state, pending, message, asked_at, seen_at, answer_by, holder_grant)
			SELECT CAST($1 AS TEXT), processes.id, users.id, 'open', TRUE, CAST($4 AS TEXT), CAST($5 AS BIGINT), CAST($5 AS BIGINT), CAST($6 AS BIGINT), CAST($7 AS TEXT)
			  FROM processes, users WHERE processes.id = $2 AND users.id = $3
			ON CONFLICT DO NOTHING`,
			clean(r.ID), process, nullID(r.By.ID), clean(r.Message), r.At.UnixMicro(), r.AnswerBy.UnixMicro(), clean(r.HolderGrant)))
		if err != nil {
			return a, orGone(err)
		}
		auditOf(ctx).unless(!a.created)
		a.stored, err = scanLockRequest(q.QueryRowContext(ctx, `SELECT `+lockRequestColumns+fromLockRequests+`
			WHERE r.process_id = $1 AND r.user_id = $2 AND r.pending`, process, nullID(r.By.ID)))
		return a, orAnswer(err, models.ErrNotFound)
	})
	return asked.stored, asked.created, failed("ask for the lock of process "+r.ProcessID, err)
}

// LockRequest returns a request; models.ErrNotFound if there is none.
func (s *Store) LockRequest(ctx context.Context, id string) (models.LockRequest, error) {
	ctx, done := s.read.atOnce(ctx)
	defer done()
	r, err := readLockRequest(ctx, s.read, id)
	return r, failed("read the request for a lock", err)
}

func readLockRequest(ctx context.Context, q querier, id string) (models.LockRequest, error) {
	r, err := scanLockRequest(q.QueryRowContext(ctx, `SELECT `+lockRequestColumns+fromLockRequests+` WHERE r.id = $1`, clean(id)))
	return r, orAnswer(err, models.ErrNotFound)
}

// PendingLockRequests returns the pending requests for a process, first asked first, at most limit.
func (s *Store) PendingLockRequests(ctx context.Context, processID string, limit int) ([]models.LockRequest, error) {
	process, err := parseID(processID)
	if err != nil {
		return nil, failed("list requests for a lock", err)
	}
	ctx, done := s.read.turn(ctx)
	defer done()
	all, err := collect(ctx, s.read, func(row scanner) (models.LockRequest, error) { return scanLockRequest(row) },
		`SELECT `+lockRequestColumns+fromLockRequests+` WHERE r.process_id = $1 AND r.pending ORDER BY r.asked_at, r.id LIMIT $2`, process, limit)
	return all, failed("list the requests for the lock of process "+processID, err)
}

// PendingCounts returns how many requests are pending, by the id of their process; a process that
// has none is left out.
func (s *Store) PendingCounts(ctx context.Context) (map[string]int, error) {
	ctx, done := s.read.turn(ctx)
	defer done()
	counts := map[string]int{}
	_, err := collect(ctx, s.read, func(row scanner) (struct{}, error) {
		var process int64
		var count int
		err := row.Scan(&process, &count)
		counts[formatID(process)] = count
		return struct{}{}, err
	}, `SELECT process_id, COUNT(*) FROM lock_requests WHERE pending GROUP BY process_id`)
	return counts, failed("count the requests for locks", err)
}

// LockRequestsToSettle returns requests that are pending, or given and not fetched, of processes
// behind one ("" is the first): by process, first asked first, at most limit.
func (s *Store) LockRequestsToSettle(ctx context.Context, after string, limit int) ([]models.LockRequest, error) {
	ctx, done := s.read.turn(ctx)
	defer done()
	all, err := collect(ctx, s.read, func(row scanner) (models.LockRequest, error) { return scanLockRequest(row) },
		`SELECT `+lockRequestColumns+fromLockRequests+`
		  WHERE (r.pending OR (r.state = 'given' AND NOT r.fetched)) AND r.process_id > COALESCE(CAST($1 AS BIGINT), 0)
		  ORDER BY r.process_id, r.asked_at, r.id LIMIT $2`, nullID(after), limit)
	return all, failed("list requests for locks", err)
}

// AnswerLockRequest stores the answer to a pending request: State, Reply, AnsweredAt, AnswerBy, and
// of a RequestGiven Grant and FetchBy. It returns the request as it is then. If the request is not
// pending any more it does nothing, changed is false, and what WithAudit has is left out.
// models.ErrNotFound if there is none.
func (s *Store) AnswerLockRequest(ctx context.Context, answer models.LockRequest) (now models.LockRequest, changed bool, err error) {
	type answered struct {
		now     models.LockRequest
		changed bool
	}
	got, err := result(ctx, s.transact, func(ctx context.Context, q querier) (a answered, err error) {
		a.changed, err = changes(q.ExecContext(ctx, `
			UPDATE lock_requests SET state = $2, pending = $3, reply = $4, answered_at = $5, answer_by = $6, grant_id = $7, fetch_by = $8
			 WHERE id = $1 AND pending`,
			clean(answer.ID), string(answer.State), answer.Pending(), clean(answer.Reply), answer.AnsweredAt.UnixMicro(), answer.AnswerBy.UnixMicro(),
			sql.NullString{String: answer.Grant, Valid: answer.Grant != ""}, nullTime(answer.FetchBy)))
		if err != nil {
			return a, err
		}
		auditOf(ctx).unless(!a.changed)
		a.now, err = readLockRequest(ctx, q, answer.ID)
		return a, err
	})
	return got.now, got.changed, failed("answer a request for a lock", err)
}

// changes reports whether a write changed anything.
func changes(result sql.Result, err error) (bool, error) {
	err = affected(result, err, errNothing)
	if errors.Is(err, errNothing) {
		return false, nil
	}
	return err == nil, err
}

var errNothing = errors.New("nothing changed")

// FetchLockRequest notes that the asker has the lock, if that comes in time. fetched is false if it
// does not, or if it was fetched before.
func (s *Store) FetchLockRequest(ctx context.Context, id string, now time.Time) (fetched bool, err error) {
	fetched, err = s.changeLockRequest(ctx, `
		UPDATE lock_requests SET fetched = TRUE WHERE id = $1 AND state = 'given' AND NOT fetched AND fetch_by > $2`, clean(id), now.UnixMicro())
	return fetched, failed("fetch a lock that was asked for", err)
}

// EndLockRequest gives a request whose lock was given and not fetched another state. If there is no
// such request ended is false, and what WithAudit has is left out.
func (s *Store) EndLockRequest(ctx context.Context, id string, state models.LockRequestState, at time.Time) (ended bool, err error) {
	ended, err = result(ctx, s.transact, func(ctx context.Context, q querier) (bool, error) {
		ended, err := changes(q.ExecContext(ctx, `
			UPDATE lock_requests SET state = $2, answered_at = $3 WHERE id = $1 AND state = 'given' AND NOT fetched`,
			clean(id), string(state), at.UnixMicro()))
		auditOf(ctx).unless(!ended)
		return ended, err
	})
	return ended, failed("end a request for a lock", err)
}

// SeeLockRequest notes that the asker looked.
func (s *Store) SeeLockRequest(ctx context.Context, id string, at time.Time) error {
	_, err := s.changeLockRequest(ctx, `UPDATE lock_requests SET seen_at = $2 WHERE id = $1 AND seen_at < $2`, clean(id), at.UnixMicro())
	return failed("note who looks at a request for a lock", err)
}

func (s *Store) changeLockRequest(ctx context.Context, query string, args ...any) (changed bool, err error) {
	return result(ctx, s.change, func(ctx context.Context, q querier) (bool, error) {
		return changes(q.ExecContext(ctx, query, args...))
	})
}
