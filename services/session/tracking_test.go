package session_test

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// warmForLong returns when an instance keeps a session in memory beyond the 2 s
// that it may without reports of changes.
func warmForLong(t *testing.T, i instance, token string) {
	t.Helper()
	servicestest.Eventually(t, func() bool { mustGet(t, i, token); return i.Tracks(token) }, "Redis does not report changes")
}

// commands is how many commands that read or write the server has served.
func commands(t *testing.T, server *servicestest.RedisServer) int {
	t.Helper()
	total := 0
	for line := range strings.Lines(server.Do("INFO", "commandstats")) {
		for _, name := range []string{"get", "set", "eval", "evalsha", "del", "multi", "exec", "pttl"} {
			if rest, ok := strings.CutPrefix(line, "cmdstat_"+name+":calls="); ok {
				count, _, _ := strings.Cut(rest, ",")
				n, err := strconv.Atoi(count)
				if err != nil {
					t.Fatal(err)
				}
				total += n
			}
		}
	}
	return total
}

// A session whose changes Redis reports is read for long without a command or a query.
func TestSessionTrackedReadsNeedNoCommand(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	i := startInstances(t, 1, server, session.Options{})[0]
	token, _ := signIn(t, i, signUp(t, i.db, "ann@example.com"))
	warmForLong(t, i, token)
	reads, before := i.db.reads.Load(), commands(t, server)
	const long = 2500 * time.Millisecond
	began := time.Now()
	for time.Since(began) < long {
		mustGet(t, i, token)
	}
	probes := 2 * (int(time.Since(began)/(250*time.Millisecond)) + 2) // of the Redis service, which has two connections
	if sent := commands(t, server) - before; sent > probes || i.db.reads.Load() != reads {
		t.Errorf("%d commands and %d queries", sent, i.db.reads.Load()-reads)
	}
}

// Values saved at one instance reach another, which has the session in memory for
// long, in milliseconds.
func TestSessionTrackedValuesAreFresh(t *testing.T) {
	all := startInstances(t, 2, servicestest.StartRedis(t), session.Options{})
	a, b := all[0], all[1]
	token, s := signIn(t, a, signUp(t, a.db, "ann@example.com"))
	warmForLong(t, b, token)
	for n := range 5 {
		saved, err := a.SaveData(t.Context(), s, fmt.Append(nil, n))
		if err != nil {
			t.Fatal(err)
		}
		s = saved
		servicestest.Within(t, 500*time.Millisecond, func() bool { return string(mustGet(t, b, token).Data) == fmt.Sprint(n) }, "old values")
	}
}

// When the connection that reports changes is gone, or hangs, a copy is used for
// 2 s more, and rueidis's own copy is not taken for a fresh one.
func TestSessionTrackingLost(t *testing.T) {
	for name, lose := range map[string]func(*servicestest.RedisServer, *servicestest.Proxy){
		"redis frozen": func(server *servicestest.RedisServer, _ *servicestest.Proxy) { server.Freeze() },
		"cut off":      func(_ *servicestest.RedisServer, proxy *servicestest.Proxy) { proxy.Cut() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := servicestest.StartRedis(t)
			proxy := servicestest.NewProxy(t, server.Addr)
			path := filepath.Join(t.TempDir(), "sessions.db")
			a := startInstance(t, path, redistest.Start(t, redis.Options{Disabled: true}), session.Options{})
			b := startInstance(t, path, redistest.New(t, proxy.Addr), session.Options{})
			token, s := signIn(t, a, signUp(t, a.db, "ann@example.com"))
			warmForLong(t, b, token)
			lose(server, proxy)
			// Not through a cache, so that only its age shows that the copy is old.
			if _, err := a.db.SaveSessionData(t.Context(), s.Hash, s.Version, []byte("new")); err != nil {
				t.Fatal(err)
			}
			servicestest.Within(t, revokeBound, func() bool { return string(mustGet(t, b, token).Data) == "new" }, "an old copy is used")
			if name == "redis frozen" {
				server.Thaw()
			} else {
				proxy.Restore()
			}
			servicestest.Eventually(t, b.redis.Available, "Redis is not used again")
			warmForLong(t, b, token)
		})
	}
}

// A Redis that was emptied reports no changes of what it had.
func TestSessionTrackingAfterFlush(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	i := startInstances(t, 1, server, session.Options{})[0]
	token, _ := signIn(t, i, signUp(t, i.db, "ann@example.com"))
	warmForLong(t, i, token)
	server.Do("FLUSHALL")
	servicestest.Within(t, revokeBound, func() bool { return !i.Warm(token) }, "still warm")
	warmForLong(t, i, token)
}
