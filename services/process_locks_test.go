package services_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

// leavingStore is a store during whose read, after the grant, the client leaves.
type leavingStore struct {
	*store.Store
	leave func()
}

func (s *leavingStore) Process(ctx context.Context, id string) (models.Process, error) {
	s.leave()
	return s.Store.Process(ctx, id)
}

func TestProcessLockIsNotLeftToAClientThatLeft(t *testing.T) {
	t.Parallel()
	d, alice, bob, process := office(t)
	ctx, leave := context.WithCancelCause(t.Context())
	ended := errors.New("the session ended")
	processes := newProcesses(&leavingStore{Store: d.store, leave: func() { leave(ended) }}, d.locks, secret)
	if taken, err := processes.Lock(ctx, alice, process.ID, services.ProcessLockOptions{Wait: time.Second}); !errors.Is(err, ended) || taken.Token != "" {
		t.Errorf("granted, but the client has left: %+v, %v", taken, err)
	}
	servicestest.Eventually(t, func() bool { // what is not given back in time is given back later
		_, err := d.Lock(t.Context(), bob, process.ID, services.ProcessLockOptions{})
		return err == nil
	}, "held by a client that left")
}

func TestProcessLockTokenIsBoundToUserAndProcess(t *testing.T) {
	t.Parallel()
	d, alice, bob, process := office(t)
	other := must(d.Create(t.Context(), alice, fields("Another")))
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
	t.Parallel()
	d, alice, _, process := office(t)
	taken := must(d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{}))
	rotated := d.rotate("fedcba9876543210fedcba9876543210", secret)
	if _, _, err := rotated.Replace(t.Context(), alice, process.ID, taken.Token, nil, fields("x")); err != nil {
		t.Errorf("a token signed with the older key: %v", err)
	}
	gone := d.rotate("fedcba9876543210fedcba9876543210")
	if _, _, err := gone.Replace(t.Context(), alice, process.ID, taken.Token, nil, fields("x")); !errors.Is(err, models.ErrNotHeld) {
		t.Errorf("a token signed with a key that was removed: %v", err)
	}
}

// While secrets are changed, a repeated acquire finds its grant whichever of them
// was the first when it was made, and does not wait for itself.
func TestProcessIdempotencyKeySurvivesRotation(t *testing.T) {
	t.Parallel()
	d, alice, bob, process := office(t)
	const next = "fedcba9876543210fedcba9876543210"
	oldFirst, newFirst := d.rotate(secret, next), d.rotate(next, secret)
	for name, at := range map[string][]desk{"made before": {d, oldFirst, newFirst}, "made after": {newFirst, oldFirst}} {
		opt := services.ProcessLockOptions{IdempotencyKey: name}
		first := must(at[0].Lock(t.Context(), alice, process.ID, opt))
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
	t.Parallel()
	d, alice, bob, process := office(t)
	opt := services.ProcessLockOptions{IdempotencyKey: "try-1"}
	first := must(d.Lock(t.Context(), alice, process.ID, opt))
	_, _, err := d.Replace(t.Context(), alice, process.ID, first.Token, nil, fields("changed"))
	check(t, err)
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
	t.Parallel()
	server := servicestest.StartRedis(t)
	d := newDesk(t, redistest.New(t, server.Addr), openStore(t, newDatabase(t)))
	alice := addUser(t, d.store, "alice@example.com")
	process := must(d.Create(t.Context(), alice, fields("Order paper")))
	taken := must(d.Lock(t.Context(), alice, process.ID, services.ProcessLockOptions{IdempotencyKey: "one"}))
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
