package app

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// watched is the application with a policy file, and what it has logged.
type watched struct {
	*app
	t    *testing.T
	path string
	log  servicestest.LogLines
}

// startWatched starts it with the file's text, and env in pairs of name and value.
func startWatched(t *testing.T, text string, env ...string) *watched {
	t.Helper()
	w := &watched{t: t, path: filepath.Join(t.TempDir(), "policies.yaml")}
	w.write(text)
	all := map[string]string{"RATE_LIMIT_POLICIES": w.path, "LOG_LEVEL": "info"}
	for pair := range slices.Chunk(env, 2) {
		all[pair[0]] = pair[1]
	}
	w.app = startAppOn(t, &w.log, all)
	return w
}

func (w *watched) write(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// hangUp makes all applications of this process read their files again.
func hangUp(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// tells hangs up, and waits until what follows from that is logged.
func (w *watched) tells(t *testing.T, text string) {
	t.Helper()
	w.log.Reset()
	hangUp(t)
	servicestest.Eventually(t, func() bool { return len(w.log.With(text)) > 0 }, text+" is not logged")
}

// reads has the file read again.
func (w *watched) reads(text string) {
	w.t.Helper()
	w.write(text)
	w.tells(w.t, "policies read again")
}

// limit is the limit of the policy api that is in use.
func (w *watched) limit() int64 {
	w.t.Helper()
	decisions, err := w.handlers.Limiter.Peek(w.t.Context(), "group", models.Hit{Policy: models.Policy{Name: "api"}, Key: "k"})
	if err != nil {
		w.t.Fatal(err)
	}
	return decisions[0].Policy.Limit
}

// On SIGHUP a file is read again. One that is not what it should be is told with its line, at the
// start and on SIGHUP, where the policies in use stay. It costs no memory to speak of however large
// it is.
func TestPolicyFileIsReadOnHangUp(t *testing.T) {
	const api = "policies:\n  - name: api\n    limit: 7\n    window: 1m\n"
	w := startWatched(t, "\ufeff"+strings.ReplaceAll(api, "\n", "\r\n")) // as an editor of Windows writes it
	if got := w.limit(); got != 7 {
		t.Fatalf("limit %d at the start", got)
	}
	w.reads(strings.Replace(api, "7", "8", 1))
	if got := w.limit(); got != 8 {
		t.Fatalf("limit %d after the hang-up", got)
	}
	for _, row := range []struct{ told, text string }{
		{`:3: policy \"api\": limit 0 is not allowed`, strings.Replace(api, "7", "0", 1)},
		{":3: 010 is not allowed: a number must be plain digits", strings.Replace(api, "7", "010", 1)},
		{":3: 0x10 is not allowed: a number must be plain digits", strings.Replace(api, "7", "0x10", 1)},
		{":3: 1_000 is not allowed: a number must be plain digits", strings.Replace(api, "7", "1_000", 1)},
		{":3: limit must be a whole number", strings.Replace(api, "7", "1m", 1)},
		{":4: mapping key ", strings.Replace(api, "7", "7\n    limit: 8", 1)},
		{`:5: policy \"login-audit\" cannot be in a file`, api + "  - {name: login-audit, with: api, limit: 1, window: 1m}\n"},
		{":5: the control character U+0000", api + "\x00"},
		{":1: must be UTF-8, not UTF-16", "\xff\xfep\x00"},
		{":1: nested too deeply", strings.Repeat("[", 1000)},
		{":1: policies: must be there", ""}, // as an editor leaves it while it writes
		{":1: a policy file may have 256 KiB, this one is larger", "200 MiB"},
		{": not a regular file", "a pipe without a writer"},
	} {
		t.Run(row.told, func(t *testing.T) {
			w.write(row.text)
			switch row.text {
			case "200 MiB":
				if err := os.Truncate(w.path, 200<<20); err != nil {
					t.Fatal(err)
				}
			case "a pipe without a writer":
				if err := errors.Join(os.Remove(w.path), syscall.Mkfifo(w.path, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := readPolicies(w.path) // as the start does
			runtime.ReadMemStats(&after)
			if want := "policies.yaml" + strings.ReplaceAll(row.told, `\"`, `"`); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
			if spent := (after.TotalAlloc - before.TotalAlloc) >> 20; spent > 100 {
				t.Errorf("%d MB", spent)
			}
			w.tells(t, "policies.yaml"+row.told)
			if got := w.limit(); got != 8 {
				t.Errorf("limit %d is in use", got)
			}
		})
	}
	t.Run("a wrong file ends the start", func(t *testing.T) {
		_, err := start(t.Context(), io.Discard, map[string]string{"ADDR": "127.0.0.1:0", "DATABASE_URL": newDatabase(t), "RATE_LIMIT_POLICIES": w.path})
		if err == nil || !strings.HasPrefix(err.Error(), "RATE_LIMIT_POLICIES=") {
			t.Error(err)
		}
	})
}

// Without a file a SIGHUP does not end the process.
func TestHangUpWithoutPolicies(t *testing.T) {
	t.Parallel()
	w := startWatched(t, "", "RATE_LIMIT_POLICIES", "")
	w.tells(t, "hang-up ignored")
}

// Nor does one end it while it starts, here for as long as the database is silent. It is another
// process, in which TestMain does not hear the signal.
func TestHangUpDuringTheStart(t *testing.T) {
	t.Parallel()
	if address := os.Getenv(isolated); address != "" {
		ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
		defer stop()
		if _, err := start(ctx, io.Discard, map[string]string{"ADDR": "127.0.0.1:0", "DATABASE_URL": "postgres://nobody@" + address + "/nothing"}); err == nil {
			t.Error("it started without its database")
		}
		return
	}
	database, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer database.Close()
	starting := servicestest.RunAgain(t, "TestHangUpDuringTheStart", isolated+"="+database.Addr().String())
	context.AfterFunc(t.Context(), func() { _ = database.Close() })
	conn, err := database.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	starting.Signal(syscall.SIGHUP)
	starting.Terminate()
	servicestest.Eventually(t, func() bool { return isClosed(starting.Ended()) }, "it goes on after its end was asked for")
	if code := starting.ExitCode(); code != 0 {
		t.Errorf("it ended with %d: %s", code, starting.Stdout.String())
	}
}

// What the start says about hash tags is how the keys are at Redis.
func TestPlacementIsToldAtTheStart(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	w := startWatched(t, "policies: [{name: api-burst, with: api, limit: 9, window: 1s}]",
		"REDIS_URL", "redis://"+server.Addr, "RATE_LIMIT_MAX", "100", "LOGIN_RATE_LIMIT_MAX", "100")
	if told := w.log.With(`by_common_key="api+api-burst, anonymous" by_group_name="login-ip+login-account {login}"`); len(told) == 0 { // more if another test's hang-up came
		t.Errorf("not told in %s", w.log.String())
	}
	signedIn := decoded[struct{ Token string }](t, w.login("alice@example.com", demoPassword), http.StatusOK).Token
	w.api(signedIn, http.MethodGet, "/auth/session", "")
	got := map[string]string{}
	for _, key := range strings.Fields(server.Do("KEYS", "*rate:*")) {
		// gatehouse:{tag}rate:log:policy:key
		prefix, rest, _ := strings.Cut(key, "}rate:")
		_, tag, _ := strings.Cut(prefix, "{")
		parts := strings.SplitN(rest, ":", 3)
		if len(parts) < 3 {
			t.Fatalf("a key like %s", key)
		}
		if tag == parts[2] {
			tag = "its key"
		}
		got[parts[1]] = tag
	}
	for policy, tag := range map[string]string{"api": "its key", "api-burst": "its key", "anonymous": "its key", "login-ip": "login", "login-account": "login"} {
		if got[policy] != tag {
			t.Errorf("%s is placed by %q, want %s: %v", policy, got[policy], tag, got)
		}
	}
	w.write("policies: []")
	w.tells(t, `by_common_key="api, anonymous"`)
}
