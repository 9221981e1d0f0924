package store

import (
	"context"
	"math"

	"gatehouse/models"
)

// AddAudit stores one security event.
func (s *Store) AddAudit(ctx context.Context, e models.AuditEntry) (err error) {
	ctx, done := s.writing(ctx)
	defer done(&err)
	return failed("write audit", insertAudit(ctx, s.write, e))
}

func insertAudit(ctx context.Context, q querier, e models.AuditEntry) error {
	_, err := q.ExecContext(ctx, `
		INSERT INTO audit (at, action, actor, target, ip, request_id, detail) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		e.At.UnixMicro(), clean(e.Action), clean(e.Actor), clean(e.Target), clean(e.IP), clean(e.RequestID), clean(e.Detail))
	return err
}

// Audit returns a page of the events with this action ("" is any), newest
// first. models.ErrBadCursor if the cursor is not one of this list's.
func (s *Store) Audit(ctx context.Context, action string, p models.Page) (models.List[models.AuditEntry], error) {
	before, err := decodeCursor("audit", p.Cursor, math.MaxInt64)
	if err != nil {
		return models.List[models.AuditEntry]{}, failed("list audit", err)
	}
	ctx, done := s.read.turn(ctx)
	defer done()
	limit := pageLimit(p)
	rows, err := collect(ctx, s.read, func(row scanner) (keyed[models.AuditEntry], error) {
		var e models.AuditEntry
		var id, at int64
		err := row.Scan(&id, &at, &e.Action, &e.Actor, &e.Target, &e.IP, &e.RequestID, &e.Detail)
		e.At = micros(at)
		return keyed[models.AuditEntry]{e, []int64{id}}, err
	}, `SELECT id, at, action, actor, target, ip, request_id, detail FROM audit
		WHERE ($1 = '' OR action = $1) AND id < $2 ORDER BY id DESC LIMIT $3`, clean(action), before[0], limit+1)
	return page("audit", rows, limit), failed("list audit", err)
}
