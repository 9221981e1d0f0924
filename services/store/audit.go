package store

import (
	"cmp"
	"context"
	"math"
	"slices"

	"gatehouse/models"
)

// AddAudit stores one security event.
func (s *Store) AddAudit(ctx context.Context, e models.AuditEntry) error {
	return failed("write audit", s.change(ctx, func(ctx context.Context, q querier) error { return insertAudit(ctx, q, e) }))
}

func insertAudit(ctx context.Context, q querier, e models.AuditEntry) error {
	_, err := q.ExecContext(ctx, `
		INSERT INTO audit (at, action, actor, target, ip, request_id, detail) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		e.At.UnixMicro(), clean(e.Action), clean(e.Actor), clean(e.Target), clean(e.IP), clean(e.RequestID), clean(e.Detail))
	return err
}

type auditKey struct{}

// pendingAudit is what the next transaction of a request stores, too.
type pendingAudit struct {
	entries []models.AuditEntry
	more    []models.AuditEntry // found out in the transaction
	nothing bool                // the transaction did nothing that there is an entry for
	stored  bool
}

// WithAudit makes the next transaction under the returned context store the entries,
// too, so that nothing is done without them. stored says afterwards whether one did: a
// transaction that finds nothing to do leaves them out, and then the next one has them.
// An entry without a target is about what the transaction creates.
func (s *Store) WithAudit(ctx context.Context, entries ...models.AuditEntry) (_ context.Context, stored func() bool) {
	pending := &pendingAudit{entries: slices.Clone(entries)}
	return context.WithValue(ctx, auditKey{}, pending), func() bool { return pending.stored }
}

// auditOf is what is pending; nil if nothing is.
func auditOf(ctx context.Context) *pendingAudit {
	pending, _ := ctx.Value(auditKey{}).(*pendingAudit)
	if pending == nil || pending.stored {
		return nil
	}
	return pending
}

// about gives a target to the entries that have none.
func (p *pendingAudit) about(target string) {
	if p == nil {
		return
	}
	for i := range p.entries {
		p.entries[i].Target = cmp.Or(p.entries[i].Target, target)
	}
}

// unless leaves the entries out if nothing was done.
func (p *pendingAudit) unless(nothing bool) {
	if p != nil {
		p.nothing = nothing
	}
}

// also adds what happens along with the first entry.
func (p *pendingAudit) also(action, detail string) {
	if p != nil {
		entry := p.entries[0]
		entry.Action, entry.Detail = action, detail
		p.more = append(p.more, entry)
	}
}

func (p *pendingAudit) insert(ctx context.Context, tx querier) error {
	if p == nil || p.nothing {
		return nil
	}
	for _, entry := range slices.Concat(p.entries, p.more) {
		if err := insertAudit(ctx, tx, entry); err != nil {
			return err
		}
	}
	return nil
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
	query, args := auditPage(clean(action), before[0], limit+1)
	rows, err := collect(ctx, s.read, func(row scanner) (keyed[models.AuditEntry], error) {
		var e models.AuditEntry
		var id, at int64
		err := row.Scan(&id, &at, &e.Action, &e.Actor, &e.Target, &e.IP, &e.RequestID, &e.Detail)
		e.At = micros(at)
		return keyed[models.AuditEntry]{e, []int64{id}}, err
	}, query, args...)
	return page("audit", rows, limit), failed("list audit", err)
}

// auditPage is the query of a page, a text for each kind: with a condition that is also true for
// any action SQLite would look at all entries for those of a rare one.
func auditPage(action string, before int64, limit int) (query string, args []any) {
	const columns = `SELECT id, at, action, actor, target, ip, request_id, detail FROM audit WHERE `
	if action == "" {
		return columns + `id < $1 ORDER BY id DESC LIMIT $2`, []any{before, limit}
	}
	return columns + `action = $3 AND id < $1 ORDER BY id DESC LIMIT $2`, []any{before, limit, action}
}
