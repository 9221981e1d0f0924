package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"math"
	"slices"
	"unicode/utf8"

	"gatehouse/models"
)

const processColumns = `id, title, status, description, version, created_at, updated_at, COALESCE(updated_by, 0), updated_by_email`

func scanProcess(row scanner, more ...any) (models.Process, error) {
	var read struct { // in one piece of memory
		models.Process
		id, created, updated, user int64
	}
	p := &read.Process
	err := row.Scan(append([]any{&read.id, &p.Title, &p.Status, &p.Description, &p.Version, &read.created, &read.updated, &read.user, &p.UpdatedBy.Email}, more...)...)
	p.ID, p.CreatedAt, p.UpdatedAt = formatID(read.id), micros(read.created), micros(read.updated)
	if read.user != 0 {
		p.UpdatedBy.ID = formatID(read.user)
	}
	return *p, err
}

// CreateProcess stores a new process, version 1, written by the user; userID ""
// is no user.
func (s *Store) CreateProcess(ctx context.Context, userID string, f models.ProcessFields) (models.Process, error) {
	p, err := result(ctx, s.change, func(ctx context.Context, q querier) (models.Process, error) {
		return s.createProcess(ctx, q, userID, f)
	})
	return p, failed("create process", err)
}

func (s *Store) createProcess(ctx context.Context, q querier, userID string, f models.ProcessFields) (models.Process, error) {
	title := clean(f.Title)
	return scanProcess(q.QueryRowContext(ctx, `
		INSERT INTO processes (title, title_folded, status, description, version, created_at, updated_at, updated_by, updated_by_email, last_request)
		VALUES ($1, $2, $3, $4, 1, $5, $5, $6, COALESCE((SELECT email FROM users WHERE id = $6), ''), $7)
		RETURNING `+processColumns,
		title, fold(title), f.Status, clean(f.Description), s.now().UnixMicro(), nullID(userID), clean(models.RequestID(ctx))))
}

// Process returns the process; models.ErrNotFound if there is none.
func (s *Store) Process(ctx context.Context, id string) (models.Process, error) {
	n, err := parseID(id)
	if err != nil {
		return models.Process{}, failed("read process", err)
	}
	ctx, done := s.read.atOnce(ctx)
	defer done()
	p, err := scanProcess(s.read.QueryRowContext(ctx, `SELECT `+processColumns+` FROM processes WHERE id = $1`, n))
	return p, failed("read process "+id, orAnswer(err, models.ErrNotFound))
}

// Processes returns a page of the processes that the filter selects, in its order: newest change
// first, or by title. models.ErrBadCursor if the cursor is not one of this list's.
func (s *Store) Processes(ctx context.Context, filter models.ProcessFilter, p models.Page) (models.List[models.Process], error) {
	pattern := ""
	if filter.Query != "" {
		pattern = containing(fold(clean(filter.Query)))
	}
	list := s.processesByChange
	if filter.Order == models.OrderTitle {
		list = s.processesByTitle
	}
	found, err := list(ctx, filter, pattern, p)
	return found, failed("list processes", err)
}

func (s *Store) processesByChange(ctx context.Context, filter models.ProcessFilter, pattern string, p models.Page) (models.List[models.Process], error) {
	after, err := decodeCursor("processes", p.Cursor, math.MaxInt64, math.MaxInt64)
	if err != nil {
		return models.List[models.Process]{}, err
	}
	ctx, done := s.read.turn(ctx)
	defer done()
	limit := pageLimit(p)
	// No title is longer, and SQLite refuses long patterns.
	if utf8.RuneCountInString(filter.Query) > models.MaxTitle {
		return page[models.Process]("processes", nil, limit), nil
	}
	rows, err := collect(ctx, s.read, func(row scanner) (keyed[models.Process], error) {
		var id, updated int64
		item, err := scanProcess(row, &updated, &id)
		return keyed[models.Process]{item, []int64{updated, id}}, err
	}, `SELECT `+processColumns+`, updated_at, id FROM processes
		WHERE ($1 = '' OR status = $1) AND ($2 = '' OR title_folded LIKE $2 ESCAPE '\')
		  AND (updated_at, id) < ($3, $4)
		ORDER BY updated_at DESC, id DESC LIMIT $5`,
		clean(filter.Status), pattern, after[0], after[1], limit+1)
	return page("processes", rows, limit), err
}

// titlesAtOnce is how many titles one statement reads. It always has that many parameters, so that
// it is prepared once.
const titlesAtOnce = 50

func selectTitles() string {
	return `SELECT id, title FROM processes WHERE id IN (` + numbered(titlesAtOnce) + `)`
}

// Titles returns the titles of processes by their id; one that is not there is left out.
func (s *Store) Titles(ctx context.Context, ids []string) (map[string]string, error) {
	titles := make(map[string]string, len(ids))
	for chunk := range slices.Chunk(ids, titlesAtOnce) {
		args := make([]any, titlesAtOnce)
		for i := range args {
			args[i] = int64(0) // no process has it
			if i < len(chunk) {
				if n, err := parseID(chunk[i]); err == nil {
					args[i] = n
				}
			}
		}
		if err := s.readTitles(ctx, titles, args); err != nil {
			return nil, failed("read titles", err)
		}
	}
	return titles, nil
}

// readTitles has a turn of its own: others get theirs between two chunks of a long list.
func (s *Store) readTitles(ctx context.Context, titles map[string]string, ids []any) error {
	ctx, done := s.read.turn(ctx)
	defer done()
	_, err := collect(ctx, s.read, func(row scanner) (struct{}, error) {
		var id int64
		var title string
		err := row.Scan(&id, &title)
		titles[formatID(id)] = title
		return struct{}{}, err
	}, selectTitles(), ids...)
	return err
}

// The database rule: a write happens only if no other one came in since the
// grant, the grant was not ended by a user, and, with If-Match, only to that version.
const rule = ` id = $1 AND (version = $2 OR last_grant = $3) AND version = COALESCE($4, version)
	AND NOT EXISTS (SELECT 1 FROM lock_ends WHERE grant_id = $3` + byUser + `)`

// byUser is true for the ends of locks that nothing can undo.
const byUser = ` AND how <> 'expired'`

// UpdateProcess writes the fields in one statement that holds the database rule; a trigger keeps
// the version for the history. If the rule refuses, the error is a *models.ConflictError with the
// process as it is now: models.ErrPreconditionFailed if If-Match failed, otherwise
// models.ErrVersionConflict. Before those it is a *models.NotHeldError if the grant was ended, as
// far as that is stored. models.ErrNotFound if there is no process.
func (s *Store) UpdateProcess(ctx context.Context, id, userID string, f models.ProcessFields, g models.WriteGuard) (models.Process, error) {
	n, err := parseID(id)
	if err != nil {
		return models.Process{}, failed("update process", err)
	}
	title := clean(f.Title)
	p, err := result(ctx, s.change, func(ctx context.Context, q querier) (models.Process, error) {
		p, err := scanProcess(q.QueryRowContext(ctx, `
			UPDATE processes
			   SET title = $5, title_folded = $6, status = $7, description = $8, version = version + 1, last_grant = $3,
			       updated_at = $9, updated_by = $10, updated_by_email = COALESCE((SELECT email FROM users WHERE id = $10), ''),
			       last_how = $11, last_fence = $12, last_request = $13
			 WHERE`+rule+` RETURNING `+processColumns,
			n, g.GrantedVersion, grant(g), g.IfMatch,
			title, fold(title), f.Status, clean(f.Description), s.now().UnixMicro(), nullID(userID),
			cmp.Or(g.How, models.HowEdited), g.Fence, clean(models.RequestID(ctx))))
		if errors.Is(err, sql.ErrNoRows) {
			err = refused(ctx, q, n, g)
		}
		return p, err
	})
	return p, failed("update process "+id, err)
}

// DeleteProcess deletes the process under the same rule and with the same
// errors as UpdateProcess. Its history stays, and says that the user deleted it.
func (s *Store) DeleteProcess(ctx context.Context, id, userID string, g models.WriteGuard) error {
	n, err := parseID(id)
	if err != nil {
		return failed("delete process", err)
	}
	err = s.transact(ctx, func(ctx context.Context, q querier) error {
		was, err := scanProcess(q.QueryRowContext(ctx, `DELETE FROM processes WHERE`+rule+` RETURNING `+processColumns,
			n, g.GrantedVersion, grant(g), g.IfMatch))
		if errors.Is(err, sql.ErrNoRows) {
			return refused(ctx, q, n, g)
		}
		if err != nil {
			return err
		}
		return s.insertDeletion(ctx, q, was, userID, g)
	})
	return failed("delete process "+id, err)
}

// grant is the grant to remember with a write: NULL, which equals nothing, without a lock.
func grant(g models.WriteGuard) sql.NullString {
	return sql.NullString{String: g.Grant, Valid: g.Grant != ""}
}

// refused says why the rule refused a write to the process, in the turn of the write.
func refused(ctx context.Context, q querier, n int64, g models.WriteGuard) error {
	current, err := scanProcess(q.QueryRowContext(ctx, `SELECT `+processColumns+` FROM processes WHERE id = $1`, n))
	if err != nil {
		return orAnswer(err, models.ErrNotFound)
	}
	switch ended, err := readLockEnd(ctx, q, g.Grant, byUser); {
	case err == nil:
		return &models.NotHeldError{Status: models.LockStatus{Resource: ended.Resource}, EndedBy: &ended.End}
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	if g.IfMatch != nil && *g.IfMatch != current.Version {
		return &models.ConflictError{Reason: models.ErrPreconditionFailed, Current: current}
	}
	return &models.ConflictError{Reason: models.ErrVersionConflict, Current: current}
}
