package session_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// endings are the ways to end a session. Everybody's would end those of the tests beside it, too.
var endings = map[string]func(t *testing.T, w *world, at instance, s models.Session) error{
	"one": func(t *testing.T, _ *world, at instance, s models.Session) error {
		return at.End(t.Context(), models.Ending{Hash: s.Hash})
	},
	"by id": func(t *testing.T, _ *world, at instance, s models.Session) error {
		return at.End(t.Context(), models.Ending{UserID: s.User.ID, ID: s.ID})
	},
	"user": func(t *testing.T, _ *world, at instance, s models.Session) error {
		return at.DeleteUser(t.Context(), s.User.ID)
	},
	"others": func(t *testing.T, _ *world, at instance, s models.Session) error {
		_, kept, err := at.Create(t.Context(), s)
		if err != nil {
			return err
		}
		return at.End(t.Context(), models.Ending{UserID: kept.User.ID, Keep: kept.Hash})
	},
	"disabled": func(t *testing.T, w *world, at instance, s models.Session) error {
		disabled := true
		_, err := w.store.UpdateUser(t.Context(), s.User.ID, models.UserPatch{Disabled: &disabled})
		at.Sync(t.Context())
		return err
	},
}

// Each way to end sessions is refused at once where it was acknowledged, and in time elsewhere.
func TestEndsEverywhere(t *testing.T) {
	t.Parallel()
	nothing := func(*servicestest.RedisServer) {}
	for outage, redis := range map[string]struct {
		begins, passes func(*servicestest.RedisServer)
	}{
		"Redis is up":     {nothing, nothing},
		"Redis is frozen": {(*servicestest.RedisServer).Freeze, (*servicestest.RedisServer).Thaw},
		"Redis is killed": {(*servicestest.RedisServer).Kill, nothing},
	} {
		t.Run(outage, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.instance(t, redistest.Impatient(t, w.server.Addr), session.Options{})
			b := w.instance(t, redistest.Impatient(t, w.server.Addr), session.Options{})
			both := func(t *testing.T) (string, models.Session) {
				t.Helper()
				token, s := signIn(t, a, w.signUp(t))
				mustGet(t, b, token)
				mustGet(t, a, token)
				return token, s
			}
			tokens, sessions := map[string]string{}, map[string]models.Session{}
			for name := range endings {
				tokens[name], sessions[name] = both(t)
			}
			last, _ := both(t)
			redis.begins(w.server)
			acknowledged := map[string]time.Time{}
			for name, end := range endings {
				if err := end(t, w, a, sessions[name]); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				acknowledged[name] = time.Now()
				refused(t, a, tokens[name])
			}
			for name, token := range tokens {
				refusedInTime(t, b, token, acknowledged[name])
			}
			mustGet(t, b, last)
			if err := a.End(t.Context(), models.Ending{Everybody: true}); err != nil {
				t.Fatal(err)
			}
			refused(t, a, last)
			refusedInTime(t, b, last, time.Now())
			redis.passes(w.server)
		})
	}
}

// An end reaches the other instances by a hint, far sooner than they read the log by themselves.
func TestHints(t *testing.T) {
	t.Parallel()
	t.Run("by Redis", func(t *testing.T) {
		w := newWorld(t)
		wantHints(t, w, w.one(t), w.one(t))
	})
	t.Run("by PostgreSQL", func(t *testing.T) {
		w := newWorldOn(t, servicestest.StartPostgres(t))
		wantHints(t, w, w.withoutRedis(t), w.withoutRedis(t))
	})
}

// wantHints ends sessions at one instance until the other has read the log more often than it does
// by itself, once a second.
func wantHints(t *testing.T, w *world, here, there instance) {
	t.Helper()
	ann := w.signUp(t)
	began, before := time.Now(), there.db.polls.Load()
	servicestest.Eventually(t, func() bool {
		token, s := signIn(t, here, ann)
		mustGet(t, there, token)
		end(t, here, s)
		refusedInTime(t, there, token, time.Now())
		byItself := int64(time.Since(began)/time.Second) + 1
		return there.db.polls.Load()-before >= byItself+5
	}, "the other instance reads the log once a second, not more often")
}

// Ends and reads from everywhere at once: a read that begins at the instance after the
// acknowledgement is refused.
func TestEndUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.one(t), w.one(t)
	ann := w.signUp(t)
	for range 10 {
		token, s := signIn(t, a, ann)
		var readers sync.WaitGroup
		var reading atomic.Int64
		stop := make(chan struct{})
		for _, i := range []instance{a, a, b} {
			readers.Go(func() {
				for reads := 0; ; reads++ {
					if reads == 1 {
						reading.Add(1)
					}
					select {
					case <-stop:
						return
					default:
						if _, err := i.Get(t.Context(), token); err != nil && !errors.Is(err, models.ErrNotFound) {
							t.Error(err)
							return
						}
					}
				}
			})
		}
		servicestest.Eventually(t, func() bool { return reading.Load() == 3 }, "not all of them read")
		end(t, a, s)
		for range 20 {
			refused(t, a, token)
		}
		close(stop)
		readers.Wait()
	}
}

// An administrator's change of rights applies everywhere, without a new sign-in.
func TestRolesChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.one(t), w.one(t)
	ann := w.signUp(t)
	token, _ := signIn(t, a, ann)
	mustGet(t, b, token)
	if _, err := w.store.UpdateUser(t.Context(), ann.ID, models.UserPatch{Roles: []string{models.RoleViewer}}); err != nil {
		t.Fatal(err)
	}
	a.Sync(t.Context())
	if got := mustGet(t, a, token); got.Roles[0] != models.RoleViewer {
		t.Errorf("roles at a = %v", got.Roles)
	}
	servicestest.Within(t, promised, func() bool { return mustGet(t, b, token).Roles[0] == models.RoleViewer }, "old rights at b")
}
