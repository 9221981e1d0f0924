package services_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

func asUser(addr, user string) redis.Options {
	return redis.Options{Client: rueidis.ClientOption{InitAddress: []string{addr}, Username: user, Password: "secret"}, Timeout: 10 * time.Second}
}

// Each category of commands is taken from a user of its own. Whatever is left works as
// it can, nothing fails or flaps, and where something is missing one line of the log,
// readiness and the metric say what.
func TestRedisWithoutACategoryOfCommands(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	categories := strings.Fields(server.Do("ACL", "CAT"))
	if len(categories) < 20 {
		t.Fatalf("the categories are %v", categories)
	}
	all := map[string]*watched{}
	for _, category := range categories {
		server.Do("ACL", "SETUSER", "no-"+category, "on", ">secret", "~test:*", "&test:*", "+@all", "-@"+category)
		all[category] = watch(t, asUser(server.Addr, "no-"+category))
		all[category].name = category
	}
	for _, w := range all {
		servicestest.Eventually(t, func() bool { return w.Available() || len(w.log.With("is not available")) > 0 }, "nothing is known of Redis")
	}
	workForAll(t, all, 1200*time.Millisecond)
	for category, w := range all {
		t.Run(category, func(t *testing.T) {
			node := w.Nodes()[0]
			if w.changes.Load() > 0 || len(w.log.With("level=ERROR")) > 0 || len(w.log.With("not available")) > 1 {
				t.Errorf("%d changes:\n%s", w.changes.Load(), w.log.String())
			}
			if node.Up {
				if got, of := w.worked.Load(), w.rounds.Load(); got*10 < of*9 {
					t.Errorf("%s, but only %d of %d rounds were exact", node.State, got, of)
				}
				return
			}
			named := w.log.With("not available", "no permission for ")
			if node.State != redis.NodePermission || len(named) != 1 || !strings.Contains(node.Reason, "ACL SETUSER") || !strings.Contains(w.Reason(), node.Reason) || !w.Degraded() {
				t.Errorf("%+v, log:\n%s", node, w.log.String())
			}
		})
	}
}

// A Redis that runs no scripts is there, but cannot be used: one line says so, and as
// soon as it can, it is used.
func TestRedisWithoutScripts(t *testing.T) {
	t.Parallel()
	for _, renamed := range []string{"EVAL", "EVALSHA", "PUBLISH"} {
		t.Run(renamed, func(t *testing.T) {
			t.Parallel()
			server := servicestest.StartRedis(t, "--rename-command", renamed, "")
			w := watch(t, redis.Options{Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}, Timeout: 10 * time.Second})
			servicestest.Eventually(t, func() bool { return len(w.log.With("level=WARN")) > 0 }, "nothing is told")
			w.workFor(t, 2*time.Second)
			if got := w.log.With("Redis"); w.changes.Load() > 0 || len(got) != 1 || !strings.Contains(got[0], "EVAL") && !strings.Contains(got[0], "PUBLISH") {
				t.Errorf("%d changes:\n%s", w.changes.Load(), w.log.String())
			}
			if !w.Degraded() || w.Reason() == "" {
				t.Errorf("degraded %v, %q", w.Degraded(), w.Reason())
			}
		})
	}
}

// A user may lose a permission and get it back.
func TestRedisPermissionTakenAwayAndGivenBack(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	server.Do("ACL", "SETUSER", "app", "on", ">secret", "~test:*", "&test:*", "+@all")
	w := watch(t, asUser(server.Addr, "app"))
	redistest.WaitReady(t, w.Client)
	for range 2 {
		server.Do("ACL", "SETUSER", "app", "-zadd")
		w.workFor(t, 300*time.Millisecond)
		servicestest.Eventually(t, func() bool { return w.Nodes()[0].State == redis.NodePermission }, "the missing permission is not noticed")
		if reason := w.Reason(); !strings.Contains(reason, "+zadd") {
			t.Errorf("%q", reason)
		}
		server.Do("ACL", "SETUSER", "app", "+zadd")
		servicestest.Eventually(t, w.Available, "not back")
	}
	if lines := w.log.With("not available"); len(lines) != 2 {
		t.Errorf("%s", w.log.String())
	}
}

// Why there is no Redis is told once, and not where it is.
func TestRedisSaysWhyItIsAway(t *testing.T) {
	t.Parallel()
	plain := servicestest.StartRedis(t)
	locked := servicestest.StartRedis(t)
	locked.Do("CONFIG", "SET", "requirepass", "secret")
	frozen := servicestest.StartRedis(t)
	frozen.Freeze()
	t.Cleanup(frozen.Thaw)
	sentinel := servicestest.StartSentinel(t)
	certificate, key := selfSigned(t)
	secure := servicestest.FreeAddr(t)
	port := secure[strings.LastIndex(secure, ":")+1:]
	servicestest.StartRedis(t, "--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no")
	rows := map[string]struct {
		url    string
		state  redis.NodeState
		reason string
	}{
		"refused":             {"redis://" + servicestest.FreeAddr(t), redis.NodeGone, "refused"},
		"not found":           {"redis://nothing.invalid:6379", redis.NodeGone, "name"},
		"frozen":              {"redis://" + frozen.Addr, redis.NodeTimeout, "REDIS_TIMEOUT"},
		"a password missing":  {"redis://" + locked.Addr, redis.NodePassword, "password"},
		"a wrong password":    {"redis://:hunter2@" + locked.Addr, redis.NodePassword, "password"},
		"RESP2":               {"redis://:hunter2@" + locked.Addr + "?protocol=2", redis.NodePassword, "password"},
		"TLS to a plain one":  {"rediss://" + plain.Addr, redis.NodeTimeout, "TLS"},
		"plain to TLS":        {"redis://" + secure, redis.NodeGone, "TLS"},
		"unknown certificate": {"rediss://" + secure, redis.NodeTLS, "certificate"},
		"no such master":      {"redis://" + sentinel.Addr + "?master_set=another", redis.NodeNoMaster, "master"},
		"a replica":           {"redis://" + sentinel.Replica.Addr, redis.NodeNotNow, "read-only"},
	}
	all := map[string]*watched{}
	for name, row := range rows {
		opt := redis.Options{Client: must(rueidis.ParseURL(row.url))}
		if row.state != redis.NodeTimeout {
			opt.Timeout = 10 * time.Second // a machine that is busy must not look like a server that is silent
		}
		all[name] = watch(t, opt)
		all[name].name = name
	}
	for name, w := range all {
		servicestest.Eventually(t, func() bool { return len(w.log.With("not available")) > 0 }, name+": nothing is told")
	}
	workForAll(t, all, 1500*time.Millisecond)
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			w := all[name]
			if lines := w.log.With("Redis"); len(lines) != 1 || !strings.Contains(lines[0], "state="+string(row.state)) || strings.Contains(w.log.String(), "hunter2") {
				t.Errorf("the log:\n%s", w.log.String())
			}
			if node, reason := w.Nodes()[0], w.Reason(); node.State != row.state || !strings.Contains(reason, row.reason) || strings.Contains(reason, "127.0.0.1") {
				t.Errorf("%+v, %q", node, reason)
			}
		})
	}
}

// Neither RESP3 nor client tracking is needed, and one who listens hears.
func TestRedisOverRESP2AndWithoutTracking(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	server.Do("ACL", "SETUSER", "app", "on", ">secret", "~test:*", "&test:*", "+@all", "-client|tracking", "-hello")
	for name, url := range map[string]string{"RESP2": "redis://" + server.Addr + "?protocol=2", "no tracking": "redis://app:secret@" + server.Addr} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			option, err := rueidis.ParseURL(url)
			if err != nil {
				t.Fatal(err)
			}
			w := watch(t, redis.Options{Client: option, Timeout: 3 * time.Second})
			redistest.WaitReady(t, w.Client)
			for range 3 { // one after the other, so that a connection is used again
				ctx, stop := context.WithCancel(t.Context())
				events := w.locks.Events(ctx)
				held := lockFor(t, w.locks, w.name)
				for event := range events {
					if event.Resource == w.name && event.Name == models.LockAcquired {
						break
					}
				}
				if _, err := w.locks.Release(t.Context(), held.Claim); err != nil {
					t.Error(err)
				}
				stop()
			}
			heard := make(chan string, 100)
			w.Subscribe("hints", func(message string) { heard <- message })
			servicestest.Eventually(t, func() bool {
				return w.Publish(t.Context(), "hints", "hello") == nil && len(heard) > 0
			}, "no message arrived")
			w.workFor(t, 300*time.Millisecond)
			if w.changes.Load() > 0 || w.log.String() != "" || w.worked.Load()*10 < w.rounds.Load()*9 {
				t.Errorf("%d of %d exact:\n%s", w.worked.Load(), w.rounds.Load(), w.log.String())
			}
		})
	}
}

// Without SUBSCRIBE it is asked for seldom, and told once.
func TestRedisWithoutSubscribe(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	server.Do("ACL", "SETUSER", "app", "on", ">secret", "~test:*", "&test:*", "+@all", "-subscribe")
	w := watch(t, asUser(server.Addr, "app"))
	redistest.WaitReady(t, w.Client)
	w.workFor(t, 2*time.Second)
	refused := strings.Count(server.Do("ACL", "LOG"), "subscribe")
	if stats := server.Do("INFO", "commandstats"); strings.Contains(stats, "cmdstat_subscribe:") {
		_, after, _ := strings.Cut(stats, "cmdstat_subscribe:")
		_, after, _ = strings.Cut(after, "rejected_calls=")
		if n := after[:strings.IndexAny(after, ",\r")]; len(n) > 1 {
			t.Errorf("asked %s times in 2 s (%d in the log)", n, refused)
		}
	}
	if lines := w.log.With("SUBSCRIBE"); len(lines) != 1 || w.changes.Load() > 0 || w.worked.Load()*10 < w.rounds.Load()*9 || !strings.Contains(w.Reason(), "SUBSCRIBE") {
		t.Errorf("%d changes, %d of %d exact, %q:\n%s", w.changes.Load(), w.worked.Load(), w.rounds.Load(), w.Reason(), w.log.String())
	}
}
