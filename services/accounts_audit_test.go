package services_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/store"
)

// audited is a user with two sessions and a lock, and who acts.
type audited struct {
	accountsDesk
	user          models.Credentials
	tokens        [2]string
	mine, another models.Session
	client        services.Client
}

func (a accountsDesk) auditedUser(t *testing.T, address string) audited {
	t.Helper()
	user := must(a.db.CreateUser(t.Context(), address, services.HashFor(password), []string{models.RoleEditor}))
	w := audited{accountsDesk: a, user: a.credentials(t, address), client: services.Client{IP: "192.0.2.7", Network: "192.0.2.7", RequestID: "request-1"}}
	for i, s := range []*models.Session{&w.mine, &w.another} {
		var err error
		w.tokens[i], *s, err = a.sessions.Create(t.Context(), models.Session{User: models.UserRef{ID: user.ID, Email: user.Email}, Roles: user.Roles, Epoch: w.user.Epoch})
		check(t, err)
	}
	check(t, a.db.RememberNetwork(t.Context(), user.ID, w.client.Network, time.Now()))
	must(a.locks.TryAcquire(t.Context(), lock.Request{Resource: w.resource(), Holder: models.Holder{UserID: user.ID, Email: user.Email}}))
	return w
}

func (w audited) resource() string { return "process:" + w.user.ID }

// state is all that a change may have changed.
func (w audited) state(t *testing.T) string {
	t.Helper()
	user, err := w.db.CredentialsByID(t.Context(), w.user.ID)
	return fmt.Sprint(user, err, w.live(t, w.tokens[0]), w.live(t, w.tokens[1]), must(w.CountSessions(t.Context(), w.user.ID)),
		must(w.locks.Status(t.Context(), w.resource())).Held, len(must(w.Users(t.Context(), models.Page{Limit: 100})).Items))
}

// refuseAudit makes the database take no more entries of the audit.
func (a accountsDesk) refuseAudit(t *testing.T) {
	t.Helper()
	raw := must(sql.Open("sqlite", a.path))
	defer raw.Close()
	must(raw.ExecContext(t.Context(), `CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'the audit is full'); END`))
}

// Each action has its entry, with who did it, to whom, and from where; and is not done without.
func TestActionsAreAudited(t *testing.T) {
	t.Parallel()
	const admin, next = "admin@example.com", "the next password"
	change := func(change services.UserChange) func(*testing.T, audited) error {
		return func(t *testing.T, w audited) error {
			_, err := w.ChangeUser(t.Context(), administrator, w.user.ID, change, w.client)
			return err
		}
	}
	rows := []struct {
		name string
		do   func(t *testing.T, w audited) error
		// want has no Target where it is the user, and no Actor where it is the user, too.
		want func(w audited) models.AuditEntry
	}{
		{"a sign-in", func(t *testing.T, w audited) error {
			_, _, err := w.SignIn(t.Context(), w.user.Email, password, w.client)
			return err
		}, func(audited) models.AuditEntry { return models.AuditEntry{Action: models.AuditSignIn} }},
		{"a sign-out", func(t *testing.T, w audited) error { return w.SignOut(t.Context(), w.mine, w.client) },
			func(audited) models.AuditEntry { return models.AuditEntry{Action: models.AuditSignOut} }},
		{"a change of the own password", func(t *testing.T, w audited) error {
			_, _, err := w.ChangePassword(t.Context(), w.mine, password, next, w.client)
			return err
		}, func(audited) models.AuditEntry { return models.AuditEntry{Action: models.AuditPasswordChanged} }},
		{"the end of a session", func(t *testing.T, w audited) error { return w.EndSession(t.Context(), w.mine, w.another.ID, w.client) },
			func(w audited) models.AuditEntry {
				return models.AuditEntry{Action: models.AuditSessionRevoked, Detail: "session " + w.another.ID}
			}},
		{"the end of the other sessions", func(t *testing.T, w audited) error { return w.EndOtherSessions(t.Context(), w.mine, w.client) },
			func(audited) models.AuditEntry {
				return models.AuditEntry{Action: models.AuditSessionsRevoked, Detail: "all others"}
			}},
		{"the end of a user's sessions", func(t *testing.T, w audited) error { return w.EndUserSessions(t.Context(), admin, w.user.ID, w.client) },
			func(audited) models.AuditEntry {
				return models.AuditEntry{Action: models.AuditSessionsRevoked, Actor: admin, Detail: "all"}
			}},
		{"the end of all sessions", func(t *testing.T, w audited) error { return w.EndAllSessions(t.Context(), w.mine, w.client) },
			func(audited) models.AuditEntry {
				return models.AuditEntry{Action: models.AuditSessionsRevoked, Target: "everybody", Detail: "all but this one"}
			}},
		{"a change of rights", change(services.UserChange{Roles: []string{models.RoleViewer, models.RoleAdmin}}), func(audited) models.AuditEntry {
			return models.AuditEntry{Action: models.AuditUserChanged, Actor: admin, Detail: "roles viewer, admin"}
		}},
		{"a disabled user", change(services.UserChange{Disabled: new(true)}), func(audited) models.AuditEntry {
			return models.AuditEntry{Action: models.AuditUserChanged, Actor: admin, Detail: "disabled true"}
		}},
		{"a change of everything", change(services.UserChange{Roles: []string{models.RoleViewer}, Disabled: new(true), Password: new(next)}), func(audited) models.AuditEntry {
			return models.AuditEntry{Action: models.AuditUserChanged, Actor: admin, Detail: "roles viewer; disabled true; password"}
		}},
		{"a deleted user", func(t *testing.T, w audited) error {
			return w.DeleteUser(t.Context(), administrator, w.user.ID, w.client)
		},
			func(audited) models.AuditEntry {
				return models.AuditEntry{Action: models.AuditUserDeleted, Actor: admin}
			}},
		{"a new user", func(t *testing.T, w audited) error {
			_, err := w.CreateUser(t.Context(), admin, "new-"+w.user.Email, next, []string{models.RoleViewer, models.RoleEditor}, w.client)
			return err
		}, func(w audited) models.AuditEntry {
			created := must(w.db.Credentials(t.Context(), "new-"+w.user.Email))
			return models.AuditEntry{Action: models.AuditUserCreated, Actor: admin, Target: "user:" + created.ID, Detail: "new-" + w.user.Email + " as viewer, editor"}
		}},
		{"a forced lock", func(t *testing.T, w audited) error {
			_, err := w.ForceLock(t.Context(), administrator, w.resource(), "she is on holiday", nil, w.client)
			return err
		}, func(w audited) models.AuditEntry {
			return models.AuditEntry{Action: models.AuditLockForced, Actor: admin, Target: w.resource(), Detail: "held by " + w.user.Email + ": she is on holiday"}
		}},
	}
	a := newAccounts(t, 1000)
	for i, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w := a.auditedUser(t, fmt.Sprintf("audited%d@example.com", i))
			before, entries := w.state(t), len(a.audit(t, ""))
			check(t, row.do(t, w))
			if w.state(t) == before {
				t.Error("nothing was done")
			}
			all := a.audit(t, "")
			if len(all) != entries+1 {
				t.Fatalf("%d entries, there were %d before", len(all), entries)
			}
			got, want := all[0], row.want(w)
			if want.Actor == "" {
				want.Actor = w.user.Email
			}
			if want.Target == "" {
				want.Target = "user:" + w.user.ID
			}
			want.At, want.IP, want.RequestID = got.At, w.client.IP, w.client.RequestID
			if got != want || got.At.IsZero() {
				t.Errorf("the entry is %+v, want %+v", got, want)
			}
		})
	}
	var worlds []audited
	for i := range rows {
		worlds = append(worlds, a.auditedUser(t, fmt.Sprintf("full%d@example.com", i)))
	}
	a.refuseAudit(t)
	for i, row := range rows {
		t.Run(row.name+" is not done without its entry", func(t *testing.T) {
			w := worlds[i]
			before := w.state(t)
			if err := row.do(t, w); !errors.Is(err, models.ErrUnavailable) {
				t.Errorf("%v", err)
			}
			if after := w.state(t); after != before {
				t.Errorf("it is %s, was %s", after, before)
			}
		})
	}
}

func TestSessionLimitIsInTheAudit(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	for range 5 { // one more than the limit
		a.signIn(t)
	}
	if entries := a.audit(t, models.AuditSessionRevoked); len(entries) != 1 || entries[0].Actor != "alice@example.com" {
		t.Errorf("%+v", entries)
	}
}

// A slow database is waited for as long as it may take, also by a request that was given up.
func TestAuditWaitsForTheDatabase(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	w := a.auditedUser(t, "slow@example.com")
	ctx, giveUp := context.WithCancel(t.Context())
	accounts := a.on(givenUp{a.db, giveUp, t}, loginLimits(1000))
	_, err := accounts.ForceLock(ctx, administrator, w.resource(), "she is on holiday", nil, w.client)
	if entries := a.audit(t, models.AuditLockForced); err == nil || len(entries) != 2 {
		t.Errorf("%v, with %+v, want what was asked for and that it was not acknowledged", err, entries)
	}
}

// givenUp is a database during whose calls the request is given up.
type givenUp struct {
	*store.Store
	giveUp context.CancelFunc
	t      *testing.T
}

func (g givenUp) AddAudit(ctx context.Context, entry models.AuditEntry) error {
	g.giveUp()
	if deadline, ok := ctx.Deadline(); ok {
		g.t.Errorf("an entry has %v, whatever DATABASE_TIMEOUT says", time.Until(deadline))
	}
	return g.Store.AddAudit(ctx, entry)
}
