package services

import (
	"context"
	"log/slog"
	"time"

	"gatehouse/models"
)

type auditTrail interface {
	auditWriter
	auditWith
	Audit(ctx context.Context, action string, page models.Page) (models.List[models.AuditEntry], error)
}

type auditWith interface {
	WithAudit(ctx context.Context, entries ...models.AuditEntry) (_ context.Context, stored func() bool)
}

type auditWriter interface {
	AddAudit(ctx context.Context, entry models.AuditEntry) error
}

// auditLog stores audit entries and logs them.
type auditLog struct {
	store auditWriter
	log   *slog.Logger
}

// entry is an audit entry about an action of the client.
func (c Client) entry(action, actor, target, detail string) models.AuditEntry {
	return models.AuditEntry{Action: action, Actor: actor, Target: target, IP: c.IP, RequestID: c.RequestID, Detail: detail}
}

// AuditPage returns a page of the audit, newest first; action "" is any. models.ErrBadCursor if
// the cursor is not its own.
func (a *Accounts) AuditPage(ctx context.Context, action string, page models.Page) (models.List[models.AuditEntry], error) {
	return a.store.Audit(ctx, action, page)
}

// audited calls do, and stores the audit entries in the same database transaction: the database
// has both or neither.
func (a *Accounts) audited(ctx context.Context, do func(ctx context.Context) error, entries ...models.AuditEntry) error {
	for i := range entries {
		entries[i].At = time.Now().UTC()
	}
	auditing, stored := a.store.WithAudit(ctx, entries...)
	if err := do(auditing); err != nil {
		return err
	}
	for _, entry := range entries {
		if stored() {
			auditLog{a.store, a.log}.tell(entry)
		} else if err := a.audit(ctx, entry); err != nil { // do found nothing to store
			return err
		}
	}
	return nil
}

// audit stores a security event in the database, and logs it. It outlives the request. The
// error says that the event is not stored.
func (a *Accounts) audit(ctx context.Context, entry models.AuditEntry) error {
	return auditLog{a.store, a.log}.add(ctx, entry)
}

// add stores and logs an entry as Accounts.audit does.
func (a auditLog) add(ctx context.Context, entry models.AuditEntry) error {
	entry.At = time.Now().UTC()
	a.tell(entry)
	if err := a.store.AddAudit(context.WithoutCancel(ctx), entry); err != nil {
		a.log.Error("an audit entry was not stored", "action", entry.Action, "error", err)
		return err
	}
	return nil
}

// tell logs entries that are stored, or about to be.
func (a auditLog) tell(entries ...models.AuditEntry) {
	for _, entry := range entries {
		a.log.Info("audit", "action", entry.Action, "actor", entry.Actor, "target", entry.Target, "ip", entry.IP, "requestId", entry.RequestID, "detail", entry.Detail)
	}
}

// auditOf is an audit entry about a user; userID "" is an unknown or a new user.
func auditOf(action, actor, userID string, client Client, detail string) models.AuditEntry {
	target := ""
	if userID != "" {
		target = "user:" + userID
	}
	return client.entry(action, actor, target, detail)
}
