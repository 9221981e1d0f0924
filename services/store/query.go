package store

import (
	"context"
	"database/sql"
)

// hotQuery is a query that is asked all the time. SQLite parses one anew each time,
// which takes four times as long as the answer, unless it is prepared; the driver of
// PostgreSQL does that by itself.
type hotQuery struct {
	db       *sql.DB
	text     string
	prepared *sql.Stmt // nil with PostgreSQL
}

// nameQueries is called when the connections are there.
func (s *Store) nameQueries() {
	s.oneSession = hotQuery{db: s.read.DB, text: oneSession}
	s.newInLog = hotQuery{db: s.logReader.DB, text: newInLog}
}

// prepare lasts until the database is closed.
func (q *hotQuery) prepare(ctx context.Context) (err error) {
	q.prepared, err = q.db.PrepareContext(ctx, q.text)
	return err
}

func (q *hotQuery) rows(ctx context.Context, args ...any) (*sql.Rows, error) {
	if q.prepared != nil {
		return q.prepared.QueryContext(ctx, args...)
	}
	return q.db.QueryContext(ctx, q.text, args...)
}

func (q *hotQuery) row(ctx context.Context, args ...any) *sql.Row {
	if q.prepared != nil {
		return q.prepared.QueryRowContext(ctx, args...)
	}
	return q.db.QueryRowContext(ctx, q.text, args...)
}
