package session_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// When the connection that reports changes is gone, or hangs, a copy is used for 2 s more, and
// rueidis's own copy is not taken for a fresh one.
func TestTrackingLost(t *testing.T) {
	t.Parallel()
	for name, connection := range map[string]struct {
		lose, restore func(*servicestest.RedisServer, *servicestest.Proxy)
	}{
		"Redis is frozen": {
			func(server *servicestest.RedisServer, _ *servicestest.Proxy) { server.Freeze() },
			func(server *servicestest.RedisServer, _ *servicestest.Proxy) { server.Thaw() },
		},
		"the connection is cut": {
			func(_ *servicestest.RedisServer, proxy *servicestest.Proxy) { proxy.Cut() },
			func(_ *servicestest.RedisServer, proxy *servicestest.Proxy) { proxy.Restore() },
		},
		"Redis is emptied": { // it reports no changes of what it had
			func(server *servicestest.RedisServer, _ *servicestest.Proxy) { server.Do("FLUSHALL") },
			func(*servicestest.RedisServer, *servicestest.Proxy) {},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			proxy := servicestest.NewProxy(t, w.server.Addr)
			a, b := w.withoutRedis(t), w.instance(t, redistest.Impatient(t, proxy.Addr), session.Options{})
			token, s := signIn(t, a, w.signUp(t))
			warmForLong(t, b, token)
			connection.lose(w.server, proxy)
			// Not through a cache, so that only its age shows that the copy is old.
			if _, err := w.store.SaveSessionData(t.Context(), s.Hash, s.Version, []byte("new")); err != nil {
				t.Fatal(err)
			}
			readsInTime(t, b, token, "new")
			connection.restore(w.server, proxy)
			servicestest.Eventually(t, b.redis.Available, "Redis is not used again")
			warmForLong(t, b, token)
		})
	}
}

// trackingMode is a Redis, or a way to ask it, that reports changed keys or not.
type trackingMode struct {
	server []string // arguments of a redis-server of its own; nil is the shared one
	acl    string   // what a user of its own may do; "" is the default user
	query  string   // of REDIS_URL
	change func(*rueidis.ClientOption)
	reason string // what the log says; "": changes are reported
	long   bool   // only in the proof
}

var trackingModes = map[string]trackingMode{
	"tracks":                  {},
	"tracks, as least user":   {acl: "+@all -@admin -@dangerous", long: true},
	"client_cache=0":          {query: "?client_cache=0", reason: "client_cache=0 is set"},
	"protocol=2":              {query: "?protocol=2", reason: "protocol=2 is set"},
	"no CLIENT TRACKING":      {acl: "+@all -client|tracking", reason: "client|tracking"},
	"no CLIENT CACHING":       {acl: "+@all -client|caching", reason: "client|caching"},
	"no CLIENT ID":            {acl: "+@all -client|id", reason: "client|id"},
	"no CLIENT":               {acl: "+@all -client", reason: "client|tracking", long: true},
	"no connection commands":  {acl: "+@all -@connection", reason: "client|tracking"},
	"no transactions":         {acl: "+@all -@transaction", reason: "multi", long: true},
	"RESP2 only":              {server: []string{"--rename-command", "HELLO", ""}, reason: "RESP3"},
	"CLIENT renamed away":     {server: []string{"--rename-command", "CLIENT", ""}, reason: "unknown command", long: true},
	"a proxy that keeps mute": {change: func(opt *rueidis.ClientOption) { opt.ClientTrackingOptions = []string{"PREFIX", "other:", "BCAST"} }, reason: "not reported"},
}

// instance starts one that reaches the world's Redis as a mode does, and writes to log.
func (m trackingMode) instance(t *testing.T, w *world, log *servicestest.LogLines) instance {
	t.Helper()
	user := ""
	if m.acl != "" {
		name := "app" + strings.NewReplacer("@", "", "|", "", " ", "", "+", "", "-", "").Replace(m.acl)
		w.server.Do(append([]string{"ACL", "SETUSER", name, "on", ">secret", "~test:*", "&test:*"}, strings.Fields(m.acl)...)...)
		user = name + ":secret@"
	}
	option, err := rueidis.ParseURL("redis://" + user + w.server.Addr + m.query)
	if err != nil {
		t.Fatal(err)
	}
	if m.change != nil {
		m.change(&option)
	}
	logger := slog.New(slog.NewTextHandler(log, nil))
	rdb := redistest.Start(t, redis.Options{Client: option, KeyPrefix: "test:", Logger: logger})
	redistest.WaitReady(t, rdb)
	return w.instance(t, rdb, session.Options{Logger: logger})
}

// Where Redis, its user, its version, a proxy or REDIS_URL does not allow that Redis reports
// changed keys, Redis is used all the same, copies in memory are good for 2 s, and one line in the
// log says why. So what one instance saves, ends or changes counts at another in time.
func TestTrackingModesProof(t *testing.T) {
	t.Parallel()
	w, rounds := newWorld(t), 1
	if servicestest.LongProof() {
		rounds = 4
	}
	for name, mode := range trackingModes {
		if mode.long && !servicestest.LongProof() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := w
			if mode.server != nil {
				w = newWorldOn(t, newDatabase(t))
				w.server = servicestest.StartRedis(t, mode.server...)
			}
			var log servicestest.LogLines
			a, b := mode.instance(t, w, new(servicestest.LogLines)), mode.instance(t, w, &log)
			saved, savedSession := signIn(t, a, w.signUp(t))
			ended, _ := signIn(t, a, w.signUp(t))
			user := w.signUp(t)
			changed, _ := signIn(t, a, user)
			for _, token := range []string{saved, ended, changed} {
				mustGet(t, b, token)
				if mode.reason == "" {
					warmForLong(t, b, token)
				}
			}
			for round := range rounds {
				savedSession = save(t, a, savedSession, fmt.Sprint(round))
				savedAt := time.Now()
				roles := []string{[]string{models.RoleViewer, models.RoleEditor}[round%2]}
				if _, err := w.store.UpdateUser(t.Context(), user.ID, models.UserPatch{Roles: roles}); err != nil {
					t.Fatal(err)
				}
				a.Sync(t.Context())
				if err := a.Delete(t.Context(), ended); err != nil {
					t.Fatal(err)
				}
				refusedInTime(t, b, ended, time.Now())
				servicestest.By(t, savedAt, promised, func() bool {
					return string(mustGet(t, b, saved).Data) == fmt.Sprint(round) && slices.Equal(mustGet(t, b, changed).Roles, roles)
				}, "the other instance goes on with what was")
				ended, _ = signIn(t, a, w.signUp(t))
				mustGet(t, b, ended)
			}

			if mode.reason == "" {
				if b.redis.Status() != "ok" || len(log.With("changed keys")) > 0 {
					t.Errorf("%s; %s", b.redis.Status(), log.With(""))
				}
			} else {
				servicestest.Eventually(t, func() bool { return len(log.With("changed keys")) > 0 }, "nothing in the log")
				line := log.With("changed keys")
				if len(line) != 1 || !strings.Contains(line[0], mode.reason) || b.Tracks(saved) {
					t.Errorf("the log says %q, want one line with %q; tracks %t", line, mode.reason, b.Tracks(saved))
				}
			}
			if lines := log.With("not available"); b.Degraded("") || len(lines) > 0 {
				t.Errorf("degraded: %t, %q", b.Degraded(""), lines)
			}
		})
	}
}

// A permission that is taken away and given back while instances run: copies are good for 2 s
// meanwhile, Redis stays in use, and each change is logged once.
func TestTrackingTakenAwayProof(t *testing.T) {
	t.Parallel()
	permissions := []string{"client|id"}
	if servicestest.LongProof() { // what only the next proof finds
		permissions = append(permissions, "client|caching", "multi")
	}
	for _, permission := range permissions {
		t.Run(permission, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var log servicestest.LogLines
			a, b := w.one(t), trackingMode{acl: "+@all"}.instance(t, w, &log)
			token, s := signIn(t, a, w.signUp(t))
			other, _ := signIn(t, a, w.signUp(t))
			warmForLong(t, b, token)
			w.server.Do("ACL", "SETUSER", "appall", "-"+permission)
			// A copy that is not in memory is asked for on the connection that is refused now.
			servicestest.Eventually(t, func() bool {
				mustGet(t, b, other)
				return len(log.With("does not report")) == 1 && !b.Tracks(token)
			}, "not logged")
			save(t, a, s, "new")
			readsInTime(t, b, token, "new")
			w.server.Do("ACL", "SETUSER", "appall", "+"+permission)
			warmForLong(t, b, token)
			if again := log.With("Redis reports changed keys"); len(again) != 1 || len(log.With("does not report")) != 1 {
				t.Errorf("the log: %s", log.With(""))
			}
		})
	}
}
