package services_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

// onEachDatabase runs a test of a desk with a Redis of its own on SQLite and on PostgreSQL.
func onEachDatabase(t *testing.T, test func(t *testing.T, d desk)) {
	t.Helper()
	for name, url := range map[string]func() string{
		"sqlite":   func() string { return newDatabase(t) },
		"postgres": func() string { return servicestest.StartPostgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := servicestest.StartRedis(t)
			d := newDesk(t, redistest.New(t, server.Addr), openStore(t, url()))
			d.addr = server.Addr
			test(t, d)
		})
	}
}

// unprotected is the desk where any holder counts as away at once.
func (d desk) unprotected() desk {
	return d.with(services.ProcessesOptions{Protection: time.Nanosecond})
}

func taking(reason string) services.ProcessLockOptions {
	return services.ProcessLockOptions{TakeOver: true, Reason: reason, Client: services.Client{IP: "192.0.2.1", RequestID: "request"}}
}

// endedBy is what an error says of how the grant of a token ended.
func endedBy(t *testing.T, err error) models.LockEnd {
	t.Helper()
	var notHeld *models.NotHeldError
	if !errors.As(err, &notHeld) || notHeld.EndedBy == nil {
		t.Fatalf("not told how the lock ended: %v", err)
	}
	return *notHeld.EndedBy
}

// uses are what needs the token of a lock.
func (d desk) uses(t *testing.T, user models.UserRef, id, token string) map[string]error {
	t.Helper()
	ctx := t.Context()
	return map[string]error{
		"replace": func() error { _, _, err := d.Replace(ctx, user, id, token, nil, fields("late")); return err }(),
		"extend":  func() error { _, err := d.Extend(ctx, user, id, token, 0); return err }(),
		"delete":  func() error { _, err := d.Delete(ctx, user, id, token, nil); return err }(),
		"unlock":  func() error { _, err := d.Unlock(ctx, user, id, token); return err }(),
	}
}

func auditOf(t *testing.T, db *store.Store, action string) []models.AuditEntry {
	t.Helper()
	return must(db.Audit(t.Context(), action, models.Page{Limit: 50})).Items
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, d desk) {
		alice, bob := addUser(t, d.store, "alice@example.com"), addUser(t, d.store, "bob@example.com")
		newProcess := func() models.Process { return must(d.Create(t.Context(), alice, fields("Order paper"))) }

		t.Run("of the own lock is always allowed", func(t *testing.T) {
			process := newProcess()
			old := must(d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{Most: 1}))
			if _, err := d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{}); !errors.Is(err, models.ErrNotAcquired) {
				t.Errorf("not asked to: %v", err)
			}
			if s := must(d.LockStatus(t.Context(), alice, process.ID)); s.TakeOver != services.TakeOverOwn {
				t.Errorf("%+v", s)
			}
			opt := taking("my other tab")
			opt.Most, opt.Wait = 1, time.Minute // as for any other, there is no need to wait
			taken, err := d.Lock(t.Context(), alice, process.ID, opt)
			if err != nil || taken.Grant == old.Grant || taken.Token == old.Token || *taken.Fence <= *old.Fence {
				t.Fatalf("%+v, %v", taken, err)
			}
			for use, err := range d.uses(t, alice, process.ID, old.Token) {
				if end := endedBy(t, err); end.How != models.LockTakenOver || end.By != alice || end.Reason != "my other tab" || time.Since(end.At).Abs() > time.Minute {
					t.Errorf("%s: %+v", use, end)
				}
			}
			if _, _, err := d.Replace(t.Context(), alice, process.ID, taken.Token, nil, fields("on time")); err != nil {
				t.Errorf("the new token: %v", err)
			}
			entry := auditOf(t, d.store, models.AuditLockTakenOver)[0]
			entry.At = time.Time{}
			want := models.AuditEntry{
				Action: models.AuditLockTakenOver, Actor: alice.Email, Target: services.Resource(process.ID), IP: "192.0.2.1", RequestID: "request",
				Detail: "held by " + alice.Email + ": my other tab",
			}
			if entry != want {
				t.Errorf("audit %+v, want %+v", entry, want)
			}
			check(t, errorOf(d.Unlock(t.Context(), alice, process.ID, taken.Token)))
		})

		t.Run("from another user waits for the end of the protection", func(t *testing.T) {
			process := newProcess()
			old := must(d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{}))
			saved, _, err := d.Replace(t.Context(), alice, process.ID, old.Token, nil, fields("a save is a sign of life"))
			check(t, err)
			status := must(d.LockStatus(t.Context(), bob, process.ID))
			if status.TakeOver != "" || !status.ActiveAt.Equal(saved.UpdatedAt) && status.ActiveAt.Before(saved.UpdatedAt) {
				t.Errorf("%+v, saved at %v", status, saved.UpdatedAt)
			}
			var refused *models.NotAcquiredError
			if _, err := d.Lock(t.Context(), bob, process.ID, taking("")); !errors.As(err, &refused) || refused.TakeOverAt.Sub(status.ActiveAt) != 5*time.Minute {
				t.Errorf("%v, %+v", err, refused)
			}
			if _, err := d.Lock(t.Context(), bob, process.ID, services.ProcessLockOptions{}); !errors.As(err, &refused) || !refused.TakeOverAt.IsZero() {
				t.Errorf("not asked: %v, %+v", err, refused)
			}
			d := d.unprotected()
			if s := must(d.LockStatus(t.Context(), bob, process.ID)); s.TakeOver != services.TakeOverProtectionOver {
				t.Errorf("%+v", s)
			}
			stale := taking("")
			stale.IfMatch = &models.IfMatch{Versions: []int64{99}}
			if _, err := d.Lock(t.Context(), bob, process.ID, stale); !errors.Is(err, models.ErrPreconditionFailed) {
				t.Errorf("If-Match: %v", err)
			}
			check(t, errorOf(d.Extend(t.Context(), alice, process.ID, old.Token, 0))) // she did not lose it for that
			var taken services.ProcessLock
			servicestest.Eventually(t, func() bool { taken, err = d.Lock(t.Context(), bob, process.ID, taking("urgent")); return err == nil }, "protected")
			if taken.Process.Title != saved.Title {
				t.Errorf("%+v", taken)
			}
			for use, err := range d.uses(t, alice, process.ID, old.Token) {
				if end := endedBy(t, err); end.How != models.LockTakenOver || end.By != bob || end.Reason != "urgent" {
					t.Errorf("%s: %+v", use, end)
				}
			}
			asking{desk: d}.wantAudit(t, process.ID, models.AuditLockTakenOver, "bob@example.com 192.0.2.1 request: held by alice@example.com: urgent")
		})

		t.Run("counts for the limit of locks, unless the lock was the own", func(t *testing.T) {
			process, other := newProcess(), newProcess()
			held := must(d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{}))
			carol := addUser(t, d.store, "carol@example.com")
			must(d.Lock(t.Context(), carol, other.ID, services.ProcessLockOptions{}))
			opt := taking("")
			opt.Most = 1
			var tooMany *models.TooManyLocksError
			if _, err := d.unprotected().Lock(t.Context(), carol, process.ID, opt); !errors.As(err, &tooMany) {
				t.Error(err)
			}
			opt.Wait = time.Minute // refused before the wait
			if _, err := d.Lock(t.Context(), carol, process.ID, opt); !errors.As(err, &tooMany) {
				t.Error(err)
			}
			check(t, errorOf(d.Extend(t.Context(), alice, process.ID, held.Token, 0)))
		})

		t.Run("is the database's business, too: the old token is refused where Redis is not known", func(t *testing.T) {
			process := newProcess()
			old := must(d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{}))
			cutOff := newDesk(t, redistest.Start(t, redis.Options{Disabled: true}), d.store)
			if _, degraded, err := cutOff.Replace(t.Context(), alice, process.ID, old.Token, nil, fields("without Redis")); err != nil || !degraded {
				t.Errorf("the holder: %t, %v", degraded, err)
			}
			taken := must(d.Lock(t.Context(), alice, process.ID, taking("")))
			for name, write := range map[string]func() (bool, error){
				"replace": func() (bool, error) {
					_, degraded, err := cutOff.Replace(t.Context(), alice, process.ID, old.Token, nil, fields("late"))
					return degraded, err
				},
				"delete": func() (bool, error) { return cutOff.Delete(t.Context(), alice, process.ID, old.Token, nil) },
			} {
				degraded, err := write()
				if end := endedBy(t, err); !degraded || end.How != models.LockTakenOver {
					t.Errorf("%s: %t, %+v", name, degraded, end)
				}
			}
			if got, _, err := cutOff.Replace(t.Context(), alice, process.ID, taken.Token, nil, fields("the new token")); err != nil || got.Version != process.Version+2 {
				t.Errorf("%+v, %v", got, err)
			}
		})

		t.Run("happens at an instance without Redis, and counts there", func(t *testing.T) {
			process := newProcess()
			cutOff := newDesk(t, redistest.Start(t, redis.Options{Disabled: true}), d.store)
			old := must(cutOff.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{}))
			var refused *models.NotAcquiredError
			if _, err := cutOff.Lock(t.Context(), bob, process.ID, taking("")); !errors.As(err, &refused) || refused.TakeOverAt.IsZero() || !refused.Status.Degraded {
				t.Errorf("%v, %+v", err, refused)
			}
			cutOff = cutOff.unprotected()
			taken, err := cutOff.Lock(t.Context(), bob, process.ID, taking(""))
			if err != nil || !taken.Degraded || taken.Fence != nil {
				t.Fatalf("%+v, %v", taken, err)
			}
			for use, err := range cutOff.uses(t, alice, process.ID, old.Token) {
				if end := endedBy(t, err); end.By != bob {
					t.Errorf("%s: %+v", use, end)
				}
			}
		})
	})
}

// Nobody loses a lock without an audit entry, nor to a request that is not answered.
func TestTakeOverThatFails(t *testing.T) {
	t.Parallel()
	d, alice, _, process := office(t)
	old := must(d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{}))
	failing := errors.New("the database is full")
	take := func(from *failingStore) error {
		return errorOf(newProcesses(from, d.locks, secret).Lock(t.Context(), alice, process.ID, taking("")))
	}

	if err := take(&failingStore{Store: d.store, audit: failing}); !errors.Is(err, failing) {
		t.Errorf("without its audit entry: %v", err)
	}
	check(t, errorOf(d.Extend(t.Context(), alice, process.ID, old.Token, 0)))

	if err := take(&failingStore{Store: d.store, ends: failing}); !errors.Is(err, failing) {
		t.Errorf("without the end of the old one: %v", err)
	}
	if status := must(d.LockStatus(t.Context(), alice, process.ID)); status.Held {
		t.Errorf("held by a request that was not answered: %+v", status)
	}
}

type failingStore struct {
	*store.Store
	audit, ends error
}

func (s *failingStore) AddAudit(ctx context.Context, entry models.AuditEntry) error {
	if s.audit != nil {
		return s.audit
	}
	return s.Store.AddAudit(ctx, entry)
}

func (s *failingStore) AddLockEnds(ctx context.Context, ends ...models.EndedLock) error {
	if s.ends != nil {
		return s.ends
	}
	return s.Store.AddLockEnds(ctx, ends...)
}
