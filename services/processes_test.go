package services_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

const secret = "0123456789abcdef0123456789abcdef"

// desk is one instance that edits processes.
type desk struct {
	*services.Processes
	store *store.Store
	locks *lock.Locker
}

func newDesk(t *testing.T, rdb *redis.Client, db *store.Store, secrets ...string) desk {
	t.Helper()
	if secrets == nil {
		secrets = []string{secret}
	}
	locks := lock.New(rdb, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: redistest.Quiet()})
	return desk{Processes: newProcesses(db, locks, secrets...), store: db, locks: locks}
}

func newProcesses(db services.ProcessStore, locks *lock.Locker, secrets ...string) *services.Processes {
	return must(services.NewProcesses(db, locks, must(lock.NewTokenSigner(secrets)), secrets))
}

// rotate is the desk after a change of its secrets.
func (d desk) rotate(secrets ...string) desk {
	d.Processes = newProcesses(d.store, d.locks, secrets...)
	return d
}

// office is one desk, two editors and a process to edit.
func office(t *testing.T) (desk, models.UserRef, models.UserRef, models.Process) {
	t.Helper()
	d := newDesk(t, redistest.Patient(t, servicestest.StartRedis(t).Addr), openStore(t, filepath.Join(t.TempDir(), "test.db")))
	alice, bob := addUser(t, d.store, "alice@example.com"), addUser(t, d.store, "bob@example.com")
	process := must(d.Create(t.Context(), alice, models.ProcessFields{Title: "Order paper", Status: "draft"}))
	return d, alice, bob, process
}

func addUser(t *testing.T, db *store.Store, email string) models.UserRef {
	t.Helper()
	user := must(db.CreateUser(t.Context(), email, "hash", []string{models.RoleEditor}))
	return models.UserRef{ID: user.ID, Email: user.Email}
}

func fields(title string) models.ProcessFields {
	return models.ProcessFields{Title: title, Status: "active"}
}

func TestProcessIfMatch(t *testing.T) {
	t.Parallel()
	d, alice, _, process := office(t)
	stale := &models.IfMatch{Versions: []int64{process.Version + 1}}
	if _, err := d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{IfMatch: stale}); !errors.Is(err, models.ErrPreconditionFailed) {
		t.Errorf("lock: %v", err)
	}
	if s, err := d.LockStatus(t.Context(), process.ID); err != nil || s.Held {
		t.Errorf("a refused lock stays: %+v, %v", s, err)
	}
	if _, _, err := d.QuickUpdate(t.Context(), alice, process.ID, services.QuickUpdateOptions{IfMatch: stale}, models.ProcessPatch{}); !errors.Is(err, models.ErrPreconditionFailed) {
		t.Errorf("quick update: %v", err)
	}
	taken := must(d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{IfMatch: &models.IfMatch{Any: true}}))
	var conflict *models.ConflictError
	if _, _, err := d.Replace(t.Context(), alice, process.ID, taken.Token, stale, fields("x")); !errors.As(err, &conflict) || !errors.Is(err, models.ErrPreconditionFailed) || conflict.Current.Version != process.Version {
		t.Errorf("replace: %v", err)
	}
	if _, _, err := d.Replace(t.Context(), alice, process.ID, taken.Token, &models.IfMatch{Versions: []int64{7, process.Version}}, fields("x")); err != nil {
		t.Errorf("replace with the current version among others: %v", err)
	}
}

// Two editors hold the lock, each at an instance without Redis. The one that writes later had read
// what the other has overwritten since: the version in its token says so.
func TestProcessTheDatabaseDecides(t *testing.T) {
	t.Parallel()
	db := openStore(t, filepath.Join(t.TempDir(), "test.db"))
	noRedis := func() *redis.Client { return redistest.Start(t, redis.Options{Disabled: true}) }
	a, b := newDesk(t, noRedis(), db), newDesk(t, noRedis(), db)
	alice, bob := addUser(t, db, "alice@example.com"), addUser(t, db, "bob@example.com")
	process := must(a.Create(t.Context(), alice, fields("Order paper")))
	one, err := a.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{})
	if err != nil || !one.Degraded {
		t.Fatalf("%+v, %v", one, err)
	}
	two, err := b.Lock(t.Context(), bob, process.ID, services.ProcessLockOptions{})
	if err != nil || !two.Degraded {
		t.Fatalf("%+v, %v", two, err)
	}
	_, _, err = a.Replace(t.Context(), alice, process.ID, one.Token, nil, fields("from alice"))
	check(t, err)
	_, _, err = b.Replace(t.Context(), bob, process.ID, two.Token, nil, fields("from bob")) // who read the process before
	var conflict *models.ConflictError
	if !errors.As(err, &conflict) || !errors.Is(err, models.ErrVersionConflict) || conflict.Current.Version != process.Version+1 {
		t.Errorf("the later writer gets: %v", err)
	}
	must(a.Unlock(t.Context(), alice, process.ID, one.Token))
	// A quick update merges: it changes its own field only.
	status := "paused"
	got, degraded, err := a.QuickUpdate(t.Context(), alice, process.ID, services.QuickUpdateOptions{}, models.ProcessPatch{Status: &status})
	if err != nil || !degraded || got.Status != "paused" || got.Title != "from alice" {
		t.Errorf("quick update: %+v, %v, %v", got, degraded, err)
	}
}

func TestProcessQuickUpdateWaitsForTheLock(t *testing.T) {
	t.Parallel()
	d, alice, bob, process := office(t)
	taken := must(d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{}))
	title := "Order less paper"
	if _, _, err := d.QuickUpdate(t.Context(), bob, process.ID, services.QuickUpdateOptions{}, models.ProcessPatch{Title: &title}); !errors.Is(err, models.ErrNotAcquired) {
		t.Errorf("quick update while locked: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := d.QuickUpdate(t.Context(), bob, process.ID, services.QuickUpdateOptions{Wait: 10 * time.Second}, models.ProcessPatch{Title: &title})
		done <- err
	}()
	servicestest.Eventually(t, func() bool {
		s, err := d.LockStatus(t.Context(), process.ID)
		return err == nil && s.Waiting == 1
	}, "the update does not wait")
	must(d.Unlock(t.Context(), alice, process.ID, taken.Token))
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s, err := d.LockStatus(t.Context(), process.ID); err != nil || s.Held {
		t.Errorf("its lock stays: %+v, %v", s, err)
	}
}
