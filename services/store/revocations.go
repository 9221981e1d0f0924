package store

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"time"

	"gatehouse/models"
)

// log numbers the entries and writes them to the revocation log. It must be the
// last thing a transaction does: the row lock on the head then makes
// transactions commit in the order of their numbers, so a reader that has seen a
// number has missed none before it. In SQLite there is one writer, and a group of
// writes becomes visible as a whole.
func (s *Store) log(ctx context.Context, tx querier, entries ...models.Revocation) error {
	if len(entries) == 0 {
		return nil
	}
	var head int64
	nonce := rand.Int64()
	err := tx.QueryRowContext(ctx, `UPDATE revocation_head SET seq = seq + $1, mark = $2 RETURNING seq`, len(entries), nonce).Scan(&head)
	if err != nil {
		return err
	}
	first := head - int64(len(entries)) + 1
	for i, entry := range entries {
		_, err := tx.ExecContext(ctx, `INSERT INTO revocations (seq, mark, at, session_hash, user_id) VALUES ($1, $2, $3, $4, $5)`,
			first+int64(i), nonce, s.now().UnixMicro(),
			sql.NullString{String: entry.SessionHash, Valid: entry.SessionHash != ""}, nullID(entry.UserID))
		if err != nil {
			return err
		}
	}
	if s.notify == "" {
		return nil
	}
	_, err = tx.ExecContext(ctx, s.notify) // delivered when the transaction commits
	return err
}

// NoteChange writes to the revocation log that a session is no longer what copies
// say, or, with hash "", that no copy of any session counts. It ends nothing.
// models.ErrUnavailable if it could not be written.
func (s *Store) NoteChange(ctx context.Context, hash string) error {
	entry := models.Revocation{SessionHash: clean(hash)}
	return failed("note change of a session", s.transact(ctx, func(ctx context.Context, q querier) error { return s.log(ctx, q, entry) }))
}

// One read of the log returns its newest 20,000 entries at most: an instance that
// was away for hours must be able to read on within the timeout. The number is part
// of the text because PostgreSQL would not plan for one that it does not know.
const (
	selectLog = `SELECT head.seq, head.mark, r.seq, r.mark, r.at, r.session_hash, r.user_id
		  FROM revocation_head AS head LEFT JOIN (SELECT seq, mark, at, session_hash, user_id FROM revocations
		 WHERE seq `
	newestFirst = ` ORDER BY seq DESC LIMIT 20000) AS r ON TRUE ORDER BY r.seq`
	newInLog    = selectLog + `> $1` + newestFirst
	logSince    = selectLog + `>= (SELECT MIN(seq) FROM revocations WHERE at >= $1)` + newestFirst
)

// Revocations returns the entries of the log with numbers above after or, if since is not
// zero, the part of the log that begins with the first entry not before since, in commit
// order, and the log's head, all from one snapshot. Numbers have no gaps: if fewer than
// Head - after entries come back, the older ones have been cleaned up, or were more than
// 20,000. It has a connection of its own and never waits for other calls.
func (s *Store) Revocations(ctx context.Context, after int64, since time.Time) (models.Revocations, error) {
	query, arg := newInLog, after
	if !since.IsZero() {
		query, arg = logSince, since.UnixMicro()
	}
	_ = s.inPlace() // to be reported also while nothing is written
	ctx, done := s.logReader.turn(ctx)
	defer done()
	read := models.Revocations{}
	rows, err := s.logReader.QueryContext(ctx, query, arg)
	if err != nil {
		return read, failed("read revocation log", err)
	}
	defer rows.Close()
	for rows.Next() {
		var seq, nonce, at, user sql.NullInt64
		var hash sql.NullString
		if err := rows.Scan(&read.Head, &read.Nonce, &seq, &nonce, &at, &hash, &user); err != nil {
			return models.Revocations{}, failed("read revocation log", err)
		}
		if !seq.Valid { // no entries, only the head
			break
		}
		entry := models.Revocation{
			Seq: seq.Int64, Nonce: nonce.Int64, At: micros(at.Int64), SessionHash: hash.String, Everybody: !hash.Valid && !user.Valid,
		}
		if user.Valid {
			entry.UserID = formatID(user.Int64)
		}
		read.Entries = append(read.Entries, entry)
	}
	if err := rows.Err(); err != nil {
		return models.Revocations{}, failed("read revocation log", err)
	}
	return read, nil
}
