package store

import (
	"context"
	"database/sql"
	"math"

	"gatehouse/models"
)

// insertDeletion adds to the history that the user deleted a process.
func (s *Store) insertDeletion(ctx context.Context, tx querier, was models.Process, userID string, g models.WriteGuard) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO process_versions (process_id, at, created_at, actor_id, actor_email, how, grant_id, fence, request_id, status, title, description)
		VALUES ($1, $2, $3, $4, COALESCE((SELECT email FROM users WHERE id = $4), ''), $5, $6, $7, $8, $9, $10, $11)`,
		nullID(was.ID), s.now().UnixMicro(), was.CreatedAt.UnixMicro(), nullID(userID), models.HowDeleted, grant(g), g.Fence,
		clean(models.RequestID(ctx)), was.Status, was.Title, was.Description)
	return err
}

// refusedAgain changes the last row of a process, which is the last that begins an entry if no
// version came after it. It finds both by an index.
const refusedAgain = `
	UPDATE process_versions SET at = $2, actor_email = $4, request_id = $6
	 WHERE id = (SELECT id FROM process_versions WHERE process_id = $1 AND entry IS NULL ORDER BY entry DESC, id DESC LIMIT 1)
	   AND how = $5 AND actor_id = $3
	   AND id > (SELECT id FROM process_versions WHERE process_id = $1 AND version IS NOT NULL ORDER BY version DESC LIMIT 1)`

// noteRefusedSave adds to the history that a save was refused; it has none of the text. If that is
// already the last that happened to the process, by the same user, the entry is changed to this
// refusal: a client that repeats a save must not fill the history. It does nothing if there never
// was such a process.
func noteRefusedSave(ctx context.Context, tx querier, r refusedSave) error {
	args := []any{r.process, r.At.UnixMicro(), nullID(r.User.ID), clean(r.User.Email), models.HowRefused, clean(r.RequestID)}
	again, err := changes(tx.ExecContext(ctx, refusedAgain, args...))
	if err != nil || again {
		return err
	}
	_, err = tx.ExecContext(ctx, `
		INSERT INTO process_versions (process_id, at, created_at, actor_id, actor_email, how, request_id, status, title, description)
		SELECT process_id, CAST($2 AS BIGINT), created_at, CAST($3 AS BIGINT), CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($6 AS TEXT), '', '', ''
		  FROM process_versions WHERE process_id = $1 LIMIT 1`, args...)
	return err
}

// historyPage finds the rows that begin an entry by an index, and for each the last row of the
// entry and the version before it, however many saves there are in between.
const historyPage = `
	SELECT first.id, first.at, last.at, COALESCE(first.actor_id, 0), first.actor_email, first.how, last.version, first.fence, last.request_id,
	       last.title, last.status, last.description, first.version, before.title, before.status, before.description,
	       first.ended_how, COALESCE(first.ended_at, 0), COALESCE(first.ended_by_id, 0), COALESCE(first.ended_by_email, ''), COALESCE(first.ended_reason, '')
	  FROM process_versions AS first
	  JOIN process_versions AS last ON last.id = COALESCE(
	       (SELECT MAX(id) FROM process_versions WHERE process_id = first.process_id AND entry = first.id), first.id)
	  LEFT JOIN process_versions AS before ON before.process_id = first.process_id AND before.version = first.version - 1
	 WHERE first.process_id = $1 AND first.entry IS NULL AND first.id < $2
	 ORDER BY first.id DESC LIMIT $3`

// historyBytes is how much text of changes a page of the history has, but for its last entry: each
// entry can have 80 kB, and a page 200 entries.
const historyBytes = 1 << 20

// History returns a page of what was done to a process, newest first, also after its deletion. It
// has fewer entries than the limit if their texts are long, and at least one. models.ErrNotFound if
// there never was one, models.ErrBadCursor if the cursor is not one of this list's.
func (s *Store) History(ctx context.Context, processID string, p models.Page) (models.List[models.HistoryEntry], error) {
	process, err := parseID(processID)
	if err != nil {
		return models.List[models.HistoryEntry]{}, failed("read history", err)
	}
	before, err := decodeCursor("history", p.Cursor, math.MaxInt64)
	if err != nil {
		return models.List[models.HistoryEntry]{}, failed("read history", err)
	}
	ctx, done := s.read.turn(ctx)
	defer done()
	limit := pageLimit(p)
	read, size := 0, 0
	rows, err := collect(ctx, s.read, func(row scanner) (keyed[models.HistoryEntry], error) {
		entry, err := scanHistory(row)
		if err == nil && size >= historyBytes { // it begins the next page
			limit, err = min(limit, read), errEnough
		}
		read++
		for _, change := range entry.item.Changes {
			size += len(change.From) + len(change.To)
		}
		return entry, err
	}, historyPage, process, before[0], limit+1)
	if err == nil && len(rows) == 0 {
		err = known(ctx, s.read, process)
	}
	return page("history", rows, limit), failed("read history of process "+processID, err)
}

// known is models.ErrNotFound if the history knows no such process.
func known(ctx context.Context, q querier, process int64) error {
	var id int64
	err := q.QueryRowContext(ctx, `SELECT process_id FROM process_versions WHERE process_id = $1 LIMIT 1`, process).Scan(&id)
	return orAnswer(err, models.ErrNotFound)
}

func scanHistory(row scanner) (keyed[models.HistoryEntry], error) {
	var e models.HistoryEntry
	var id, at, ended, actor int64
	var version, first sql.NullInt64
	var to models.ProcessFields
	var title, status, description, how sql.NullString
	var end models.LockEnd
	var unlocked, by int64
	err := row.Scan(&id, &at, &ended, &actor, &e.Actor.Email, &e.How, &version, &e.Fence, &e.RequestID,
		&to.Title, &to.Status, &to.Description, &first, &title, &status, &description,
		&how, &unlocked, &by, &end.By.Email, &end.Reason)
	e.ID, e.At, e.Version = formatID(id), micros(at), version.Int64
	if ended != at {
		e.EndedAt = micros(ended)
	}
	if actor != 0 {
		e.Actor.ID = formatID(actor)
	}
	if how.Valid {
		end.How, end.At = how.String, micros(unlocked)
		if by != 0 {
			end.By.ID = formatID(by)
		}
		e.LockEnded = &end
	}
	e.Changes = []models.Change{}
	if first.Int64 == 1 || title.Valid { // else it is not known what was there before
		e.Changes = models.Changes(models.ProcessFields{Title: title.String, Status: status.String, Description: description.String}, to)
	}
	return keyed[models.HistoryEntry]{e, []int64{id}}, err
}

// Version returns a process as it was at a version, also after its deletion; models.ErrNotFound
// if there is none.
func (s *Store) Version(ctx context.Context, processID string, version int64) (models.Process, error) {
	process, err := parseID(processID)
	if err != nil {
		return models.Process{}, failed("read version", err)
	}
	ctx, done := s.read.atOnce(ctx)
	defer done()
	p, err := scanProcess(s.read.QueryRowContext(ctx, `
		SELECT process_id, title, status, description, version, created_at, at, COALESCE(actor_id, 0), actor_email
		  FROM process_versions WHERE process_id = $1 AND version = $2`, process, version))
	return p, failed("read a version of process "+processID, orAnswer(err, models.ErrNotFound))
}
