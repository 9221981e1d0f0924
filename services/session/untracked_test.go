package session_test

import (
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
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

// trackingMode is a Redis, or a way to ask it, that reports changed keys or not.
type trackingMode struct {
	server []string // arguments of redis-server
	acl    string   // what a user of this name may do; "" is the default user
	query  string   // of REDIS_URL
	change func(*rueidis.ClientOption)
	reason string // what the log says; "": changes are reported
	long   bool   // only in the proof
}

func trackingModes() map[string]trackingMode {
	return map[string]trackingMode{
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
}

// redisFor is a client of the server as a mode asks for it.
func (m trackingMode) redisFor(t *testing.T, server *servicestest.RedisServer, log *servicestest.LogLines) *redis.Client {
	t.Helper()
	user := ""
	if m.acl != "" {
		server.Do(append([]string{"ACL", "SETUSER", "app", "on", ">secret", "~test:*", "&test:*"}, strings.Fields(m.acl)...)...)
		user = "app:secret@"
	}
	option, err := rueidis.ParseURL("redis://" + user + server.Addr + m.query)
	if err != nil {
		t.Fatal(err)
	}
	if m.change != nil {
		m.change(&option)
	}
	return redistest.Start(t, redis.Options{Client: option, KeyPrefix: "test:", Timeout: time.Second, Logger: slog.New(slog.NewTextHandler(log, nil))})
}

// Where Redis, its user, its version, a proxy or REDIS_URL does not allow that Redis
// reports changed keys, Redis is used all the same, copies in memory are good for
// 2 s, and one line in the log says why. So what one instance saves, ends or changes
// counts at another in time.
func TestSessionWithAndWithoutTracking(t *testing.T) {
	modes := trackingModes()
	for _, name := range slices.Sorted(maps.Keys(modes)) {
		mode := modes[name]
		rounds := 1
		if servicestest.LongProof() {
			rounds = 4
		} else if mode.long {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := servicestest.StartRedis(t, mode.server...)
			path := filepath.Join(t.TempDir(), "sessions.db")
			var log servicestest.LogLines // of the second
			opt := session.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}
			a := startInstance(t, path, mode.redisFor(t, server, new(servicestest.LogLines)), session.Options{})
			b := startInstance(t, path, mode.redisFor(t, server, &log), opt)
			servicestest.Eventually(t, func() bool { return a.redis.Available() && b.redis.Available() }, "Redis is not used")

			saved, savedSession := signIn(t, a, signUp(t, a.db, "saved@example.com"))
			ended, _ := signIn(t, a, signUp(t, a.db, "ended@example.com"))
			user := signUp(t, a.db, "changed@example.com")
			changed, _ := signIn(t, a, user)
			for _, token := range []string{saved, ended, changed} {
				mustGet(t, b, token)
				if mode.reason == "" {
					warmForLong(t, b, token)
				}
			}
			for round := range rounds {
				var err error
				if savedSession, err = a.SaveData(t.Context(), savedSession, fmt.Append(nil, round)); err != nil {
					t.Fatal(err)
				}
				roles := []string{[]string{models.RoleViewer, models.RoleEditor}[round%2]}
				if _, err := a.db.UpdateUser(t.Context(), user.ID, models.UserPatch{Roles: roles}); err != nil {
					t.Fatal(err)
				}
				a.Sync(t.Context())
				if err := a.Delete(t.Context(), ended); err != nil {
					t.Fatal(err)
				}
				servicestest.Within(t, revokeBound, func() bool {
					_, err := b.Get(t.Context(), ended)
					return string(mustGet(t, b, saved).Data) == fmt.Sprint(round) && slices.Equal(mustGet(t, b, changed).Roles, roles) && err != nil
				}, "the other instance goes on with what was")
				refused(t, b, ended)
				ended, _ = signIn(t, a, signUp(t, a.db, fmt.Sprint(round, "@example.com")))
				mustGet(t, b, ended)
			}

			switch mode.reason {
			case "":
				if b.redis.Status() != "ok" || len(log.With("changed keys")) > 0 {
					t.Errorf("%s; %s", b.redis.Status(), log.With(""))
				}
			default:
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

// A permission that is taken away and given back while instances run: copies are good
// for 2 s meanwhile, Redis stays in use, and each change is logged once.
func TestSessionTrackingTakenAwayAndGivenBack(t *testing.T) {
	permissions := []string{"client|id"}
	if servicestest.LongProof() { // what only the next proof finds
		permissions = append(permissions, "client|caching", "multi")
	}
	for _, permission := range permissions {
		t.Run(permission, func(t *testing.T) {
			t.Parallel()
			server := servicestest.StartRedis(t)
			path := filepath.Join(t.TempDir(), "sessions.db")
			var log servicestest.LogLines
			mode := trackingMode{acl: "+@all"}
			a := startInstance(t, path, redistest.New(t, server.Addr), session.Options{})
			b := startInstance(t, path, mode.redisFor(t, server, &log), session.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			redistest.WaitReady(t, b.redis)
			token, s := signIn(t, a, signUp(t, a.db, "ann@example.com"))
			other, _ := signIn(t, a, signUp(t, a.db, "bob@example.com"))
			warmForLong(t, b, token)
			server.Do("ACL", "SETUSER", "app", "-"+permission)
			// A copy that is not in memory is asked for on the connection that is refused now.
			servicestest.Eventually(t, func() bool { mustGet(t, b, other); return len(log.With("does not report")) == 1 && !b.Tracks(token) }, "not logged")
			if _, err := a.SaveData(t.Context(), s, []byte("new")); err != nil {
				t.Fatal(err)
			}
			servicestest.Within(t, revokeBound, func() bool { return string(mustGet(t, b, token).Data) == "new" }, "an old copy is used")
			server.Do("ACL", "SETUSER", "app", "+"+permission)
			servicestest.Eventually(t, func() bool { mustGet(t, b, token); return b.Tracks(token) }, "Redis does not report changes")
			if again := log.With("Redis reports changed keys"); len(again) != 1 || len(log.With("does not report")) != 1 {
				t.Errorf("the log: %s", log.With(""))
			}
		})
	}
}
