package services_test

import (
	"context"
	"errors"
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
	addr  string // of its Redis, where a test needs that
}

func newDesk(t testing.TB, rdb *redis.Client, db *store.Store, secrets ...string) desk {
	t.Helper()
	locks := lock.New(rdb, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: redistest.Quiet()})
	return desk{Processes: newProcesses(db, locks, secrets...), store: db, locks: locks}
}

func newProcesses(db services.ProcessStore, locks *lock.Locker, secrets ...string) *services.Processes {
	if secrets == nil {
		secrets = []string{secret}
	}
	return must(services.NewProcesses(db, locks, must(lock.NewTokenSigner(secrets)), secrets, services.ProcessesOptions{Logger: redistest.Quiet()}))
}

// with is the desk with other options.
func (d desk) with(opt services.ProcessesOptions) desk {
	opt.Logger = redistest.Quiet()
	d.Processes = must(services.NewProcesses(d.store, d.locks, must(lock.NewTokenSigner([]string{secret})), []string{secret}, opt))
	return d
}

// rotate is the desk after a change of its secrets.
func (d desk) rotate(secrets ...string) desk {
	d.Processes = newProcesses(d.store, d.locks, secrets...)
	return d
}

// office is one desk, two editors and a process to edit.
func office(t *testing.T) (desk, models.UserRef, models.UserRef, models.Process) {
	t.Helper()
	d := newDesk(t, redistest.New(t, servicestest.StartRedis(t).Addr), openStore(t, newDatabase(t)))
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
	if s, err := d.LockStatus(t.Context(), alice, process.ID); err != nil || s.Held {
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
	db := openStore(t, newDatabase(t))
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
		s, err := d.LockStatus(t.Context(), alice, process.ID)
		return err == nil && s.Waiting == 1
	}, "the update does not wait")
	must(d.Unlock(t.Context(), alice, process.ID, taken.Token))
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s, err := d.LockStatus(t.Context(), alice, process.ID); err != nil || s.Held {
		t.Errorf("its lock stays: %+v, %v", s, err)
	}
}

// countingStore counts what is asked of the database about processes.
type countingStore struct {
	services.ProcessStore
	reads, writes int
}

func (s *countingStore) Process(ctx context.Context, id string) (models.Process, error) {
	s.reads++
	return s.ProcessStore.Process(ctx, id)
}

func (s *countingStore) UpdateProcess(ctx context.Context, id, userID string, fields models.ProcessFields, guard models.WriteGuard) (models.Process, error) {
	s.writes++
	return s.ProcessStore.UpdateProcess(ctx, id, userID, fields, guard)
}

func (s *countingStore) DeleteProcess(ctx context.Context, id, userID string, guard models.WriteGuard) error {
	s.writes++
	return s.ProcessStore.DeleteProcess(ctx, id, userID, guard)
}

// Who holds the lock is not asked for what the write finds out by itself. Only a refusal is explained
// by a read, and that there is no such process comes before all else.
func TestProcessReadsOnce(t *testing.T) {
	t.Parallel()
	d, alice, bob, process := office(t)
	counting := &countingStore{ProcessStore: d.store}
	d.Processes = newProcesses(counting, d.locks, secret)
	taken := must(d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{}))
	token, id, version := taken.Token, process.ID, process.Version
	const missing = "4711"
	title := "Order less paper"
	costs := func(reads, writes int, want error, do func() error) {
		t.Helper()
		counting.reads, counting.writes = 0, 0
		if err := do(); !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
		if counting.reads != reads || counting.writes != writes {
			t.Errorf("%d reads and %d writes, want %d and %d", counting.reads, counting.writes, reads, writes)
		}
	}
	replace := func(user models.UserRef, id, token string, match *models.IfMatch) func() error {
		return func() error {
			got, _, err := d.Replace(t.Context(), user, id, token, match, fields(title))
			if err == nil {
				version = got.Version
			}
			return err
		}
	}
	unlock := func(user models.UserRef, id, token string) func() error {
		return func() error { _, err := d.Unlock(t.Context(), user, id, token); return err }
	}
	extend := func(user models.UserRef, id, token string) func() error {
		return func() error { _, err := d.Extend(t.Context(), user, id, token, time.Minute); return err }
	}
	locks := func(user models.UserRef, id string, opt services.ProcessLockOptions) func() error {
		return func() error {
			got, err := d.Lock(t.Context(), user, id, opt)
			if err == nil {
				d.locks.ReleaseAfter(t.Context(), got.Claim)
			}
			return err
		}
	}
	quick := func(user models.UserRef, id string) func() error {
		return func() error {
			_, _, err := d.QuickUpdate(t.Context(), user, id, services.QuickUpdateOptions{}, models.ProcessPatch{Title: &title})
			return err
		}
	}
	other := must(d.store.CreateProcess(t.Context(), alice.ID, fields("Order more ink"))).ID
	costs(1, 0, nil, locks(alice, other, services.ProcessLockOptions{Most: 9}))
	costs(1, 0, models.ErrNotAcquired, locks(bob, id, services.ProcessLockOptions{}))
	costs(1, 0, models.ErrNotFound, locks(bob, missing, services.ProcessLockOptions{}))
	costs(1, 1, nil, quick(bob, other))
	costs(1, 0, models.ErrNotAcquired, quick(bob, id))
	costs(1, 0, models.ErrNotFound, quick(bob, missing))
	costs(0, 1, nil, replace(alice, id, token, nil))
	costs(0, 1, nil, replace(alice, id, token, &models.IfMatch{Any: true}))
	costs(0, 1, nil, replace(alice, id, token, &models.IfMatch{Versions: []int64{version}}))
	costs(0, 1, models.ErrPreconditionFailed, replace(alice, id, token, &models.IfMatch{Versions: []int64{version + 1}}))
	costs(1, 0, models.ErrPreconditionFailed, replace(alice, id, token, &models.IfMatch{}))
	costs(0, 0, nil, extend(alice, id, token))
	for _, refused := range []func(user models.UserRef, id, token string) func() error{extend, unlock, func(user models.UserRef, id, token string) func() error {
		return replace(user, id, token, nil)
	}} {
		costs(1, 0, models.ErrNotHeld, refused(bob, id, token))
		costs(1, 0, models.ErrLockTokenRequired, refused(alice, id, ""))
		costs(1, 0, models.ErrNotFound, refused(alice, missing, token))
		costs(1, 0, models.ErrNotFound, refused(alice, missing, ""))
	}
	costs(0, 0, nil, unlock(alice, id, token))
	costs(1, 0, models.ErrNotHeld, unlock(alice, id, token))
	taken = must(d.Lock(t.Context(), alice, id, services.ProcessLockOptions{}))
	costs(0, 1, nil, func() error { _, err := d.Delete(t.Context(), alice, id, taken.Token, nil); return err })
	costs(1, 0, models.ErrNotFound, unlock(alice, id, taken.Token))
}
