package services_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
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

func openStore(t *testing.T, url string) *store.Store {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func newDesk(t *testing.T, rdb *redis.Client, db *store.Store, secrets ...string) desk {
	t.Helper()
	if secrets == nil {
		secrets = []string{secret}
	}
	tokens, err := lock.NewTokenSigner(secrets)
	if err != nil {
		t.Fatal(err)
	}
	locks := lock.New(rdb, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: redistest.Quiet()})
	processes, err := services.NewProcesses(db, locks, tokens, secrets)
	if err != nil {
		t.Fatal(err)
	}
	return desk{Processes: processes, store: db, locks: locks}
}

// office is one desk, two editors and a process to edit.
func office(t *testing.T) (desk, models.UserRef, models.UserRef, models.Process) {
	t.Helper()
	d := newDesk(t, redistest.Patient(t, servicestest.StartRedis(t).Addr), openStore(t, filepath.Join(t.TempDir(), "test.db")))
	alice, bob := addUser(t, d.store, "alice@example.com"), addUser(t, d.store, "bob@example.com")
	process, err := d.Create(t.Context(), alice, models.ProcessFields{Title: "Order paper", Status: "draft"})
	if err != nil {
		t.Fatal(err)
	}
	return d, alice, bob, process
}

func addUser(t *testing.T, db *store.Store, email string) models.UserRef {
	t.Helper()
	user, err := db.CreateUser(t.Context(), email, "hash", []string{models.RoleEditor})
	if err != nil {
		t.Fatal(err)
	}
	return models.UserRef{ID: user.ID, Email: user.Email}
}

func fields(title string) models.ProcessFields {
	return models.ProcessFields{Title: title, Status: "active"}
}

// leavingStore is a store during whose second read, that after the grant, the client leaves.
type leavingStore struct {
	*store.Store
	reads int
	leave func()
}

func (s *leavingStore) Process(ctx context.Context, id string) (models.Process, error) {
	if s.reads++; s.reads == 2 {
		s.leave()
	}
	return s.Store.Process(ctx, id)
}

func TestProcessLockIsNotLeftToAClientThatLeft(t *testing.T) {
	d, alice, bob, process := office(t)
	signer, err := lock.NewTokenSigner([]string{secret})
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancelCause(t.Context())
	ended := errors.New("the session ended")
	processes, err := services.NewProcesses(&leavingStore{Store: d.store, leave: func() { leave(ended) }}, d.locks, signer, []string{secret})
	if err != nil {
		t.Fatal(err)
	}
	if taken, err := processes.Lock(ctx, alice, process.ID, services.ProcessLockOptions{Wait: time.Second}); !errors.Is(err, ended) || taken.Token != "" {
		t.Errorf("granted, but the client has left: %+v, %v", taken, err)
	}
	if _, err := d.Lock(t.Context(), bob, process.ID, services.ProcessLockOptions{}); err != nil {
		t.Errorf("held by a client that left: %v", err)
	}
}

func TestProcessLockTokenIsBoundToUserAndProcess(t *testing.T) {
	d, alice, bob, process := office(t)
	other, err := d.Create(t.Context(), alice, fields("Another"))
	if err != nil {
		t.Fatal(err)
	}
	taken, err := d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{})
	if err != nil || taken.Process.Version != process.Version || taken.TTL < 299*time.Second {
		t.Fatalf("lock: %+v, %v", taken, err)
	}
	wrong := map[string]struct {
		user  models.UserRef
		id    string
		token string
		want  error
	}{
		"none":            {alice, process.ID, "", models.ErrLockTokenRequired},
		"forged":          {alice, process.ID, "forged", models.ErrNotHeld},
		"cut":             {alice, process.ID, taken.Token[:len(taken.Token)-2], models.ErrNotHeld},
		"of another user": {bob, process.ID, taken.Token, models.ErrNotHeld},
		"other process":   {alice, other.ID, taken.Token, models.ErrNotHeld},
		"no such process": {alice, "4711", taken.Token, models.ErrNotFound},
	}
	for name, w := range wrong {
		t.Run(name, func(t *testing.T) {
			if _, _, err := d.Replace(t.Context(), w.user, w.id, w.token, nil, fields("x")); !errors.Is(err, w.want) {
				t.Errorf("replace: %v", err)
			}
			if _, err := d.Delete(t.Context(), w.user, w.id, w.token, nil); !errors.Is(err, w.want) {
				t.Errorf("delete: %v", err)
			}
			if _, err := d.Extend(t.Context(), w.user, w.id, w.token, 0); !errors.Is(err, w.want) {
				t.Errorf("extend: %v", err)
			}
			if _, err := d.Unlock(t.Context(), w.user, w.id, w.token); !errors.Is(err, w.want) {
				t.Errorf("unlock: %v", err)
			}
		})
	}
	if got, degraded, err := d.Replace(t.Context(), alice, process.ID, taken.Token, nil, fields("Order more paper")); err != nil || degraded || got.Version != process.Version+1 {
		t.Errorf("replace with the right token: %+v, %v", got, err)
	}
	if _, _, err := d.Replace(t.Context(), alice, process.ID, taken.Token, nil, fields("Again")); err != nil {
		t.Errorf("a second write under the same grant: %v", err)
	}
	if _, err := d.Delete(t.Context(), alice, process.ID, taken.Token, nil); err != nil {
		t.Errorf("delete: %v", err)
	}
	if s, err := d.locks.Status(t.Context(), services.Resource(process.ID)); err != nil || s.Held {
		t.Errorf("the lock did not end with its process: %+v, %v", s, err)
	}
}

func TestProcessLockTokenSurvivesKeyRotation(t *testing.T) {
	d, alice, _, process := office(t)
	taken, err := d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rotated := desk{Processes: rotate(t, d, "fedcba9876543210fedcba9876543210", secret)}
	if _, _, err := rotated.Replace(t.Context(), alice, process.ID, taken.Token, nil, fields("x")); err != nil {
		t.Errorf("a token signed with the older key: %v", err)
	}
	gone := desk{Processes: rotate(t, d, "fedcba9876543210fedcba9876543210")}
	if _, _, err := gone.Replace(t.Context(), alice, process.ID, taken.Token, nil, fields("x")); !errors.Is(err, models.ErrNotHeld) {
		t.Errorf("a token signed with a key that was removed: %v", err)
	}
}

func rotate(t *testing.T, d desk, secrets ...string) *services.Processes {
	t.Helper()
	tokens, err := lock.NewTokenSigner(secrets)
	if err != nil {
		t.Fatal(err)
	}
	p, err := services.NewProcesses(d.store, d.locks, tokens, secrets)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// While secrets are changed, a repeated acquire finds its grant whichever of them
// was the first when it was made, and does not wait for itself.
func TestProcessIdempotencyKeySurvivesRotation(t *testing.T) {
	d, alice, bob, process := office(t)
	const next = "fedcba9876543210fedcba9876543210"
	oldFirst, newFirst := desk{Processes: rotate(t, d, secret, next)}, desk{Processes: rotate(t, d, next, secret)}
	for name, at := range map[string][]desk{"made before": {d, oldFirst, newFirst}, "made after": {newFirst, oldFirst}} {
		opt := services.ProcessLockOptions{IdempotencyKey: name}
		first, err := at[0].Lock(t.Context(), alice, process.ID, opt)
		if err != nil {
			t.Fatal(err)
		}
		for n, other := range at {
			for _, wait := range []time.Duration{0, time.Minute} {
				opt.Wait = wait
				if again, err := other.Lock(t.Context(), alice, process.ID, opt); err != nil || again.Grant != first.Grant || again.Token != first.Token {
					t.Errorf("%s, repeated at %d with wait %v: %+v, %v", name, n, wait, again, err)
				}
			}
			if _, err := other.Lock(t.Context(), bob, process.ID, services.ProcessLockOptions{IdempotencyKey: name}); !errors.Is(err, models.ErrNotAcquired) {
				t.Errorf("%s: another user got %v", name, err)
			}
		}
		if _, err := newFirst.Unlock(t.Context(), alice, process.ID, first.Token); err != nil {
			t.Error(err)
		}
	}
}

func TestProcessIdempotencyKey(t *testing.T) {
	d, alice, bob, process := office(t)
	opt := services.ProcessLockOptions{IdempotencyKey: "try-1"}
	first, err := d.Lock(t.Context(), alice, process.ID, opt)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Replace(t.Context(), alice, process.ID, first.Token, nil, fields("changed")); err != nil {
		t.Fatal(err)
	}
	again, err := d.Lock(t.Context(), alice, process.ID, opt)
	if err != nil || again.Token != first.Token || again.Grant != first.Grant || again.Process.Title != "changed" {
		t.Errorf("repeated: %+v, %v", again, err)
	}
	for name, try := range map[string]struct {
		user models.UserRef
		key  string
	}{"another key": {alice, "try-2"}, "no key": {alice, ""}, "another user": {bob, "try-1"}} {
		if _, err := d.Lock(t.Context(), try.user, process.ID, services.ProcessLockOptions{IdempotencyKey: try.key}); !errors.Is(err, models.ErrNotAcquired) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A key that did not match must not end the grant it repeats.
	opt.IfMatch = &models.IfMatch{Versions: []int64{99}}
	if _, err := d.Lock(t.Context(), alice, process.ID, opt); !errors.Is(err, models.ErrPreconditionFailed) {
		t.Errorf("repeated with If-Match: %v", err)
	}
	if _, err := d.Unlock(t.Context(), alice, process.ID, first.Token); err != nil {
		t.Errorf("the grant ended by a failed repeat: %v", err)
	}
	opt.IfMatch = nil
	next, err := d.Lock(t.Context(), alice, process.ID, opt)
	if err != nil || next.Token == first.Token || next.Grant == first.Grant {
		t.Errorf("after release the key gets a new grant: %+v, %v", next, err)
	}
	if _, _, err := d.Replace(t.Context(), alice, process.ID, first.Token, nil, fields("late")); !errors.Is(err, models.ErrNotHeld) {
		t.Errorf("the ended grant still writes: %v", err)
	}
}

func TestProcessTokenIsNotInRedis(t *testing.T) {
	server := servicestest.StartRedis(t)
	d := newDesk(t, redistest.Patient(t, server.Addr), openStore(t, filepath.Join(t.TempDir(), "test.db")))
	alice := addUser(t, d.store, "alice@example.com")
	process, err := d.Create(t.Context(), alice, fields("Order paper"))
	if err != nil {
		t.Fatal(err)
	}
	taken, err := d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{IdempotencyKey: "one"})
	if err != nil {
		t.Fatal(err)
	}
	read := map[string][]string{"string": {"GET", "KEY"}, "zset": {"ZRANGE", "KEY", "0", "-1"}, "hash": {"HGETALL", "KEY"}}
	kinds := map[string]bool{}
	for key := range strings.SplitSeq(server.Do("KEYS", "*"), "\n") {
		command := slices.Clone(read[server.Do("TYPE", key)])
		if command == nil {
			t.Fatalf("%s is nothing this test can read", key)
		}
		command[1] = key
		if dump := server.Do(command...); strings.Contains(dump, taken.Token) || strings.Contains(dump, taken.Claim.Token) {
			t.Errorf("%s shows a token:\n%s", key, dump)
		}
		_, name, _ := strings.Cut(key, "}")
		kind, _, _ := strings.Cut(name, ":")
		kinds[kind] = true
	}
	if !kinds["lock"] || !kinds["metadata"] || !kinds["locks"] {
		t.Errorf("looked at %v only", kinds)
	}
}

func TestProcessIfMatch(t *testing.T) {
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
	taken, err := d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{IfMatch: &models.IfMatch{Any: true}})
	if err != nil {
		t.Fatal(err)
	}
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
	db := openStore(t, filepath.Join(t.TempDir(), "test.db"))
	noRedis := func() *redis.Client { return redistest.Start(t, redis.Options{Disabled: true}) }
	a, b := newDesk(t, noRedis(), db), newDesk(t, noRedis(), db)
	alice, bob := addUser(t, db, "alice@example.com"), addUser(t, db, "bob@example.com")
	process, err := a.Create(t.Context(), alice, fields("Order paper"))
	if err != nil {
		t.Fatal(err)
	}
	one, err := a.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{})
	if err != nil || !one.Degraded {
		t.Fatalf("%+v, %v", one, err)
	}
	two, err := b.Lock(t.Context(), bob, process.ID, services.ProcessLockOptions{})
	if err != nil || !two.Degraded {
		t.Fatalf("%+v, %v", two, err)
	}
	if _, _, err := a.Replace(t.Context(), alice, process.ID, one.Token, nil, fields("from alice")); err != nil {
		t.Fatal(err)
	}
	_, _, err = b.Replace(t.Context(), bob, process.ID, two.Token, nil, fields("from bob")) // who read the process before
	var conflict *models.ConflictError
	if !errors.As(err, &conflict) || !errors.Is(err, models.ErrVersionConflict) || conflict.Current.Version != process.Version+1 {
		t.Errorf("the later writer gets: %v", err)
	}
	if _, err := a.Unlock(t.Context(), alice, process.ID, one.Token); err != nil {
		t.Fatal(err)
	}
	// A quick update merges: it changes its own field only.
	status := "paused"
	got, degraded, err := a.QuickUpdate(t.Context(), alice, process.ID, services.QuickUpdateOptions{}, models.ProcessPatch{Status: &status})
	if err != nil || !degraded || got.Status != "paused" || got.Title != "from alice" {
		t.Errorf("quick update: %+v, %v, %v", got, degraded, err)
	}
}

func TestProcessQuickUpdateWaitsForTheLock(t *testing.T) {
	d, alice, bob, process := office(t)
	taken, err := d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	title := "Order less paper"
	if _, _, err := d.QuickUpdate(t.Context(), bob, process.ID, services.QuickUpdateOptions{}, models.ProcessPatch{Title: &title}); !errors.Is(err, models.ErrNotAcquired) {
		t.Errorf("quick update while locked: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := d.QuickUpdate(t.Context(), bob, process.ID, services.QuickUpdateOptions{Wait: 10 * time.Second}, models.ProcessPatch{Title: &title})
		done <- err
	}()
	servicestest.Within(t, time.Second, func() bool {
		s, err := d.LockStatus(t.Context(), process.ID)
		return err == nil && s.Waiting == 1
	}, "the update does not wait")
	if _, err := d.Unlock(t.Context(), alice, process.ID, taken.Token); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if s, err := d.LockStatus(t.Context(), process.ID); err != nil || s.Held {
		t.Errorf("its lock stays: %+v, %v", s, err)
	}
}
