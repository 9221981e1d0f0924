package session_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

func TestSessionJourney(t *testing.T) {
	t.Parallel()
	for name, rdb := range map[string]func(t *testing.T) *redis.Client{
		"redis":    func(t *testing.T) *redis.Client { return redistest.Of(t, "redis") },
		"embedded": func(t *testing.T) *redis.Client { return redistest.Of(t, "embedded") },
		"disabled": func(t *testing.T) *redis.Client {
			return redistest.Start(t, redis.Options{Disabled: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sessions.db")
			testSessionJourney(t, startInstance(t, path, rdb(t), session.Options{}))
		})
	}
	t.Run("postgres", func(t *testing.T) {
		testSessionJourney(t, startInstance(t, servicestest.StartPostgres(t), redistest.Of(t, "redis"), session.Options{}))
	})
}

func testSessionJourney(t *testing.T, i instance) {
	ann := signUp(t, i.db, "ann@example.com")
	token, begun := signIn(t, i, ann)
	if len(token) != 43 || begun.ID == "" || begun.ID == token || begun.Hash == token || begun.User.Email != ann.Email {
		t.Errorf("begun = %+v", begun)
	}
	if got := mustGet(t, i, token); got.ID != begun.ID || got.Roles[0] != models.RoleEditor || !got.ExpiresAt.Equal(begun.CreatedAt.Add(12*time.Hour)) {
		t.Errorf("got = %+v", got)
	}
	saved, err := i.SaveData(t.Context(), begun, []byte("basket"))
	if err != nil || string(saved.Data) != "basket" || saved.Version != begun.Version+1 {
		t.Fatalf("save: %+v, %v", saved, err)
	}
	if got := mustGet(t, i, token); string(got.Data) != "basket" {
		t.Errorf("data = %q", got.Data)
	}
	now, err := i.SaveData(t.Context(), begun, []byte("old"))
	if !errors.Is(err, models.ErrStale) || string(now.Data) != "basket" {
		t.Errorf("stale save: %+v, %v", now, err)
	}
	refreshed, err := i.Refresh(t.Context(), saved)
	if err != nil || !refreshed.IdleAt.After(begun.IdleAt) || string(refreshed.Data) != "basket" {
		t.Errorf("refresh: %+v, %v", refreshed, err)
	}
	signIn(t, i, ann)
	if n, err := i.Count(t.Context(), ann.ID); n != 2 || err != nil {
		t.Errorf("count = %d, %v", n, err)
	}
	if list, err := i.List(t.Context(), ann.ID); len(list) != 2 || err != nil {
		t.Errorf("list = %+v, %v", list, err)
	}
	if err := i.Delete(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	refused(t, i, token)
	if err := i.Delete(t.Context(), token); !errors.Is(err, models.ErrNotFound) {
		t.Errorf("delete again: %v", err)
	}
	if _, err := i.SaveData(t.Context(), saved, []byte("x")); !errors.Is(err, models.ErrNotFound) {
		t.Errorf("save an ended session: %v", err)
	}
	if _, err := i.Refresh(t.Context(), saved); !errors.Is(err, models.ErrNotFound) {
		t.Errorf("refresh an ended session: %v", err)
	}
	for _, bad := range []string{"", "x", token + "\n", token[:42], "!" + token[1:]} {
		reads := i.db.reads.Load()
		refused(t, i, bad)
		if i.db.reads.Load() != reads {
			t.Errorf("%q was looked up", bad)
		}
	}
}

func TestSessionWarmReadsNeedNoQuery(t *testing.T) {
	server := servicestest.StartRedis(t)
	i := startInstances(t, 1, server, session.Options{})[0]
	token, _ := signIn(t, i, signUp(t, i.db, "ann@example.com"))
	servicestest.Within(t, time.Second, func() bool { _ = mustGet(t, i, token); return i.Warm(token) }, "never warm")
	reads := i.db.reads.Load()
	for range 100 {
		mustGet(t, i, token)
	}
	if n := i.db.reads.Load() - reads; n > 1 {
		t.Errorf("%d queries for 100 warm reads", n)
	}
	if i.Warm("unknown") {
		t.Error("an unknown token is warm")
	}
}

// Each way to end sessions is refused at once where it was acknowledged, and
// soon everywhere else.
func TestSessionEndsEverywhere(t *testing.T) {
	ends := map[string]func(t *testing.T, i instance, s models.Session) error{
		"one": func(t *testing.T, i instance, s models.Session) error {
			return i.End(t.Context(), models.Ending{Hash: s.Hash})
		},
		"by id": func(t *testing.T, i instance, s models.Session) error {
			return i.End(t.Context(), models.Ending{UserID: s.User.ID, ID: s.ID})
		},
		"user": func(t *testing.T, i instance, s models.Session) error {
			return i.DeleteUser(t.Context(), s.User.ID)
		},
		"everybody": func(t *testing.T, i instance, s models.Session) error {
			return i.End(t.Context(), models.Ending{Everybody: true})
		},
		"others": func(t *testing.T, i instance, s models.Session) error {
			_, kept, err := i.Create(t.Context(), s)
			if err != nil {
				return err
			}
			return i.End(t.Context(), models.Ending{UserID: kept.User.ID, Keep: kept.Hash})
		},
		"disabled": func(t *testing.T, i instance, s models.Session) error {
			disabled := true
			if _, err := i.db.UpdateUser(t.Context(), s.User.ID, models.UserPatch{Disabled: &disabled}); err != nil {
				return err
			}
			i.Sync(t.Context())
			return nil
		},
	}
	outages := map[string]struct {
		usually time.Duration
		begin   func(*servicestest.RedisServer)
	}{
		"redis up":     {200 * time.Millisecond, func(*servicestest.RedisServer) {}},
		"redis frozen": {revokeBound, (*servicestest.RedisServer).Freeze},
		"redis killed": {revokeBound, (*servicestest.RedisServer).Kill},
	}
	for outage, o := range outages {
		t.Run(outage, func(t *testing.T) {
			t.Parallel()
			var took []time.Duration
			server := servicestest.StartRedis(t)
			all := startInstances(t, 2, server, session.Options{})
			a, b := all[0], all[1]
			for name, end := range ends {
				ann := signUp(t, a.db, fmt.Sprintf("%p@example.com", end))
				token, s := signIn(t, a, ann)
				mustGet(t, b, token)
				mustGet(t, a, token)
				o.begin(server)
				if err := end(t, a, s); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				refused(t, a, token)
				ended := time.Now()
				servicestest.Within(t, revokeBound, func() bool {
					_, err := b.Get(t.Context(), token)
					return errors.Is(err, models.ErrNotFound)
				}, name+": still accepted elsewhere")
				took = append(took, time.Since(ended))
			}
			slices.Sort(took)
			t.Logf("refused elsewhere after %v", took)
			if median := took[len(took)/2]; median > o.usually {
				t.Errorf("refused elsewhere after %v, want %v", median, o.usually)
			}
			if outage == "redis frozen" {
				server.Thaw()
			}
		})
	}
}

// A valid session is not refused while Redis is frozen, killed, emptied or back
// with old data.
func TestSessionSurvivesRedis(t *testing.T) {
	server := servicestest.StartRedis(t)
	all := startInstances(t, 2, server, session.Options{})
	a, b := all[0], all[1]
	token, s := signIn(t, a, signUp(t, a.db, "ann@example.com"))
	steps := []struct {
		name string
		do   func()
	}{
		{"up", func() {}},
		{"emptied", func() { server.Do("FLUSHALL") }},
		{"frozen", server.Freeze},
		{"thawed", server.Thaw},
		{"killed", server.Kill},
		{"restarted", server.Start},
	}
	for _, step := range steps {
		step.do()
		for range 20 {
			for _, i := range all {
				if got := mustGet(t, i, token); got.ID != s.ID {
					t.Fatalf("%s: got %+v", step.name, got)
				}
			}
		}
	}
	servicestest.Within(t, 2*time.Second, func() bool { return !b.Degraded(token) }, "still degraded")
}

// A database that hangs is reported within its timeout. No session ends by it, and no token
// that has none is let in.
func TestSessionDatabaseFrozen(t *testing.T) {
	t.Parallel()
	postgres := servicestest.StartPostgresServer(t)
	i := startInstance(t, postgres.URL, redistest.New(t, servicestest.StartRedis(t).Addr), session.Options{})
	ann := signUp(t, i.db, "ann@example.com")
	token, _ := signIn(t, i, ann)
	ended, _ := signIn(t, i, ann)
	if err := i.Delete(t.Context(), ended); err != nil {
		t.Fatal(err)
	}
	postgres.Freeze()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			start := time.Now()
			_, err := i.Get(t.Context(), ended)
			if took := time.Since(start); !errors.Is(err, models.ErrUnavailable) || errors.Is(err, models.ErrNotFound) || took > 1500*time.Millisecond {
				t.Errorf("after %v: %v", took, err)
			}
		})
	}
	wg.Wait()
	servicestest.Within(t, 3*time.Second, func() bool {
		_, err := i.Get(t.Context(), token)
		if errors.Is(err, models.ErrNotFound) {
			t.Fatal("signed out by a database that hangs")
		}
		return errors.Is(err, models.ErrUnavailable)
	}, "trusted for ever")
	postgres.Thaw()
	servicestest.Eventually(t, func() bool { _, err := i.Get(t.Context(), token); return err == nil }, "not back")
	refused(t, i, ended)
}

// With the database gone no copy counts, so Redis is not asked for one: the 503
// does not wait for a slow Redis before it waits for the database.
func TestSessionRedisIsNotAskedInVain(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	i := startInstances(t, 1, server, session.Options{})[0]
	ann := signUp(t, i.db, "ann@example.com")
	var tokens []string
	for range 20 {
		token, _ := signIn(t, i, ann)
		tokens = append(tokens, token)
	}
	i.db.gone.Store(true)
	servicestest.Eventually(t, func() bool {
		_, err := i.Get(t.Context(), tokens[len(tokens)-1]) // the newest copy
		return errors.Is(err, models.ErrUnavailable)
	}, "trusted for ever")
	server.Do("CONFIG", "RESETSTAT")
	for _, token := range tokens {
		if _, err := i.Get(t.Context(), token); !errors.Is(err, models.ErrUnavailable) {
			t.Error(err)
		}
	}
	if stats := server.Do("INFO", "commandstats"); strings.Contains(stats, "cmdstat_get:") {
		t.Errorf("Redis was asked for copies that do not count: %s", stats)
	}
	i.db.gone.Store(false)
	servicestest.Eventually(t, func() bool { _, err := i.Get(t.Context(), tokens[0]); return err == nil }, "not back")
}
