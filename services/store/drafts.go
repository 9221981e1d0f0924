package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"gatehouse/models"
)

const draftColumns = `title, status, description, base_version, saved_at`

func scanDraft(row scanner) (models.Draft, error) {
	var d models.Draft
	var saved int64
	err := row.Scan(&d.Title, &d.Status, &d.Description, &d.BaseVersion, &saved)
	d.SavedAt = micros(saved)
	return d, err
}

// Draft returns the user's draft of a process; models.ErrNotFound if there is none.
func (s *Store) Draft(ctx context.Context, processID, userID string) (models.Draft, error) {
	process, user, err := draftKey(processID, userID)
	if err != nil {
		return models.Draft{}, failed("read draft", err)
	}
	ctx, done := s.read.atOnce(ctx)
	defer done()
	d, err := readDraft(ctx, s.read, process, user)
	return d, failed("read draft of process "+processID, err)
}

func readDraft(ctx context.Context, q querier, process, user int64) (models.Draft, error) {
	d, err := scanDraft(q.QueryRowContext(ctx, `SELECT `+draftColumns+` FROM drafts WHERE process_id = $1 AND user_id = $2`, process, user))
	return d, orAnswer(err, models.ErrNotFound)
}

func draftKey(processID, userID string) (process, user int64, err error) {
	if process, err = parseID(processID); err == nil {
		user, err = parseID(userID)
	}
	return process, user, err
}

// SaveDraft stores the user's draft of a process in place of the one before, if that was not saved
// after unchangedSince; the zero time is no condition. SavedAt is also the version of the draft, so
// it always rises, also where the clock was set back or is behind another instance's. Errors are
// models.ErrNotFound if there is no such process or user, a *models.ValidationError if it has no
// version d.BaseVersion yet, and a *models.DraftConflictError with the draft that was saved later.
func (s *Store) SaveDraft(ctx context.Context, processID, userID string, d models.Draft, unchangedSince time.Time) (models.Draft, error) {
	process, user, err := draftKey(processID, userID)
	if err != nil {
		return models.Draft{}, failed("save draft", err)
	}
	saved, err := result(ctx, s.change, func(ctx context.Context, q querier) (models.Draft, error) {
		saved, err := scanDraft(q.QueryRowContext(ctx, `
			INSERT INTO drafts (process_id, user_id, title, status, description, base_version, saved_at)
			SELECT id, CAST($2 AS BIGINT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($6 AS BIGINT), CAST($7 AS BIGINT)
			  FROM processes WHERE id = $1 AND version >= $6
			ON CONFLICT (process_id, user_id) DO UPDATE
			   SET title = excluded.title, status = excluded.status, description = excluded.description,
			       base_version = excluded.base_version,
			       saved_at = CASE WHEN excluded.saved_at > drafts.saved_at THEN excluded.saved_at ELSE drafts.saved_at + 1 END
			 WHERE drafts.saved_at <= COALESCE($8, drafts.saved_at)
			RETURNING `+draftColumns,
			process, user, clean(d.Title), d.Status, clean(d.Description), d.BaseVersion, s.now().UnixMicro(), nullTime(unchangedSince)))
		if errors.Is(err, sql.ErrNoRows) {
			err = draftRefused(ctx, q, process, user, d)
		}
		return saved, orGone(err)
	})
	return saved, failed("save draft of process "+processID, err)
}

// draftRefused says why a draft was not stored, in the turn of the write.
func draftRefused(ctx context.Context, q querier, process, user int64, d models.Draft) error {
	var version int64
	err := q.QueryRowContext(ctx, `SELECT version FROM processes WHERE id = $1`, process).Scan(&version)
	switch {
	case err != nil:
		return orAnswer(err, models.ErrNotFound)
	case d.BaseVersion > version:
		return models.Invalid("baseVersion", "must be a version of the process")
	}
	return draftConflict(ctx, q, process, user)
}

// DeleteDraft deletes the user's draft of a process, if it was not saved after unchangedSince; the
// zero time is no condition. Errors are models.ErrNotFound if there is none, and a
// *models.DraftConflictError with the draft that was saved later.
func (s *Store) DeleteDraft(ctx context.Context, processID, userID string, unchangedSince time.Time) error {
	process, user, err := draftKey(processID, userID)
	if err != nil {
		return failed("delete draft", err)
	}
	err = s.change(ctx, func(ctx context.Context, q querier) error {
		n, err := deleted(ctx, q, `DELETE FROM drafts WHERE process_id = $1 AND user_id = $2 AND saved_at <= COALESCE($3, saved_at)`,
			process, user, nullTime(unchangedSince))
		if err == nil && n == 0 {
			err = draftConflict(ctx, q, process, user)
		}
		return err
	})
	return failed("delete draft of process "+processID, err)
}

// draftConflict is why a condition was not met: the draft as it is now, or that there is none.
func draftConflict(ctx context.Context, q querier, process, user int64) error {
	current, err := readDraft(ctx, q, process, user)
	if err != nil {
		return err
	}
	return &models.DraftConflictError{Current: current}
}

// Drafts returns who has a draft of a process, the latest first. There may be no such process.
func (s *Store) Drafts(ctx context.Context, processID string) ([]models.DraftRef, error) {
	process, err := parseID(processID)
	if err != nil {
		return []models.DraftRef{}, nil
	}
	ctx, done := s.read.turn(ctx)
	defer done()
	list, err := collect(ctx, s.read, func(row scanner) (models.DraftRef, error) {
		var d models.DraftRef
		var user, saved int64
		err := row.Scan(&user, &d.Email, &saved)
		d.UserID, d.SavedAt = formatID(user), micros(saved)
		return d, err
	}, `SELECT drafts.user_id, users.email, drafts.saved_at FROM drafts JOIN users ON users.id = drafts.user_id
		WHERE drafts.process_id = $1 ORDER BY drafts.saved_at DESC, drafts.user_id`, process)
	return list, failed("list drafts of process "+processID, err)
}

// ProcessWithDrafts returns a process and who has a draft of it. As most have none, that costs one
// look into an index.
func (s *Store) ProcessWithDrafts(ctx context.Context, id string) (models.Process, []models.DraftRef, error) {
	n, err := parseID(id)
	if err != nil {
		return models.Process{}, nil, failed("read process", err)
	}
	p, drafted, err := s.processAndIfDrafts(ctx, n)
	if err != nil || !drafted {
		return p, []models.DraftRef{}, failed("read process "+id, orAnswer(err, models.ErrNotFound))
	}
	drafts, err := s.Drafts(ctx, id)
	return p, drafts, err
}

func (s *Store) processAndIfDrafts(ctx context.Context, n int64) (p models.Process, drafted bool, err error) {
	ctx, done := s.read.atOnce(ctx)
	defer done()
	p, err = scanProcess(s.read.QueryRowContext(ctx, `
		SELECT `+processColumns+`, EXISTS (SELECT 1 FROM drafts WHERE drafts.process_id = processes.id) FROM processes WHERE id = $1`, n), &drafted)
	return p, drafted, err
}

// orphanedListed is how many orphaned drafts of a user are listed.
const orphanedListed = 20

// OrphanedDrafts returns the user's drafts of processes that were deleted, the latest first, if they
// had another text than the process in the end: up to 20. There may be no such user.
func (s *Store) OrphanedDrafts(ctx context.Context, userID string) ([]models.OrphanedDraft, error) {
	user, err := parseID(userID)
	if err != nil {
		return []models.OrphanedDraft{}, nil
	}
	ctx, done := s.read.turn(ctx)
	defer done()
	list, err := collect(ctx, s.read, func(row scanner) (models.OrphanedDraft, error) {
		var d models.OrphanedDraft
		var process, saved int64
		err := row.Scan(&process, &d.Title, &saved)
		d.ProcessID, d.SavedAt = formatID(process), micros(saved)
		return d, err
	}, `SELECT process_id, title, saved_at FROM orphaned_drafts WHERE user_id = $1 ORDER BY saved_at DESC, process_id LIMIT $2`, user, orphanedListed)
	return list, failed("list orphaned drafts of user "+userID, err)
}

// OrphanedDraft returns the user's draft of a process that was deleted; models.ErrNotFound if there
// is none.
func (s *Store) OrphanedDraft(ctx context.Context, processID, userID string) (models.Draft, error) {
	process, user, err := draftKey(processID, userID)
	if err != nil {
		return models.Draft{}, failed("read orphaned draft", err)
	}
	ctx, done := s.read.atOnce(ctx)
	defer done()
	d, err := scanDraft(s.read.QueryRowContext(ctx, `SELECT `+draftColumns+` FROM orphaned_drafts WHERE user_id = $1 AND process_id = $2`, user, process))
	return d, failed("read the draft of the deleted process "+processID, orAnswer(err, models.ErrNotFound))
}

// DeleteOrphanedDraft deletes the user's draft of a process that was deleted, as it was saved at
// savedAt; models.ErrNotFound if there is no such one.
func (s *Store) DeleteOrphanedDraft(ctx context.Context, processID, userID string, savedAt time.Time) error {
	process, user, err := draftKey(processID, userID)
	if err != nil {
		return failed("delete orphaned draft", err)
	}
	err = s.change(ctx, func(ctx context.Context, q querier) error {
		n, err := deleted(ctx, q, `DELETE FROM orphaned_drafts WHERE user_id = $1 AND process_id = $2 AND saved_at = $3`, user, process, savedAt.UnixMicro())
		if err == nil && n == 0 {
			err = models.ErrNotFound
		}
		return err
	})
	return failed("delete the draft of the deleted process "+processID, err)
}

// nullTime is a time as it is stored, NULL for the zero time.
func nullTime(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMicro(), Valid: !t.IsZero()}
}
