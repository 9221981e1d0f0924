package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatehouse/internal/config"
	"gatehouse/models"
	"gatehouse/services/ratelimit"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
)

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func writePolicies(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func hangUp(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// limitInUse is the limit that the limiter decides by for a policy of the program.
func limitInUse(t *testing.T, limiter *ratelimit.Limiter, policy models.Policy) int64 {
	t.Helper()
	decisions, err := limiter.Peek(t.Context(), "group", models.Hit{Policy: policy, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	return decisions[0].Policy.Limit
}

func TestPoliciesAreReadAgainOnHangUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policies.yaml")
	write := func(limit string) {
		writePolicies(t, path, "policies:\n  - name: api\n    limit: "+limit+"\n    window: 1m\n")
	}
	var log syncBuffer
	a := &app{config: config.Config{RateLimitPolicies: path}, log: slog.New(slog.NewTextHandler(&log, nil))}
	a.catchHangUps()
	own := newPolicies(config.Config{RateLimitMax: 300, RateLimitWindow: time.Minute, LoginRateLimitMax: 1, LoginRateLimitWindow: time.Minute})
	limiter := ratelimit.New(redis.New(redis.Options{Disabled: true}), ratelimit.Options{})
	limit := func() int64 { return limitInUse(t, limiter, own.api) }

	write("none")
	if err := a.watchPolicies(limiter, own); err == nil || !strings.HasPrefix(err.Error(), "RATE_LIMIT_POLICIES=") || !strings.Contains(err.Error(), "policies.yaml:3: ") {
		t.Fatalf("a wrong file at the start: %v", err)
	}
	write("7")
	if err := a.watchPolicies(limiter, own); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.close(); err != nil {
			t.Error(err)
		}
	}()
	if limit() != 7 {
		t.Fatalf("limit %d at the start", limit())
	}
	write("8")
	hangUp(t)
	servicestest.Eventually(t, func() bool { return limit() == 8 }, "the new limit does not count")
	write("0")
	hangUp(t)
	servicestest.Eventually(t, func() bool { return strings.Contains(log.String(), "policies.yaml:3: ") }, "the mistake is not told")
	if limit() != 8 {
		t.Errorf("limit %d after a wrong file", limit())
	}
	for told, put := range map[string]func(){
		"policies: must be there": func() { writePolicies(t, path, "") }, // as an editor leaves it while it writes
		"not a regular file": func() { // and there is no writer
			if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		put()
		hangUp(t)
		servicestest.Eventually(t, func() bool { return strings.Contains(log.String(), told) }, told+" is not told")
		if limit() != 8 {
			t.Errorf("limit %d: %s", limit(), told)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		write("8")
	}
}

// A file that is not what it should be is told with its line, at the start and on SIGHUP,
// where the policies in use stay, and costs no memory to speak of however large it is.
func TestPolicyFilesThatAreRefused(t *testing.T) {
	const api = "policies:\n  - name: api\n    limit: 7\n    window: 1m\n"
	path := filepath.Join(t.TempDir(), "policies.yaml")
	var log syncBuffer
	a := &app{config: config.Config{RateLimitPolicies: path}, log: slog.New(slog.NewTextHandler(&log, nil))}
	a.catchHangUps()
	own := newPolicies(config.Config{RateLimitMax: 300, RateLimitWindow: time.Minute, LoginRateLimitMax: 1, LoginRateLimitWindow: time.Minute})
	limiter := ratelimit.New(redis.New(redis.Options{Disabled: true}), ratelimit.Options{})
	writePolicies(t, path, "\ufeff"+strings.ReplaceAll(api, "\n", "\r\n")) // as an editor of Windows writes it
	if err := a.watchPolicies(limiter, own); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, row := range []struct{ told, text string }{
		{":3: 010 is not allowed: a number must be plain digits", strings.Replace(api, "7", "010", 1)},
		{":3: 0x10 is not allowed: a number must be plain digits", strings.Replace(api, "7", "0x10", 1)},
		{":3: 1_000 is not allowed: a number must be plain digits", strings.Replace(api, "7", "1_000", 1)},
		{":3: limit must be a whole number", strings.Replace(api, "7", "1m", 1)},
		{":4: mapping key ", strings.Replace(api, "7", "7\n    limit: 8", 1)},
		{":5: policy \\\"login-audit\\\" cannot be in a file", api + "  - {name: login-audit, with: api, limit: 1, window: 1m}\n"},
		{":5: the control character U+0000", api + "\x00"},
		{":1: must be UTF-8, not UTF-16", "\xff\xfep\x00"},
		{":1: nested too deeply", strings.Repeat("[", 1000)},
		{":1: a policy file may have 256 KiB, this one is larger", ""},
	} {
		told := "policies.yaml" + row.told
		writePolicies(t, path, row.text)
		if row.text == "" {
			if err := os.Truncate(path, 200<<20); err != nil {
				t.Fatal(err)
			}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := readPolicies(path) // as watchPolicies does at the start
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(told, `\"`, `"`)) {
			t.Errorf("%v, want %s", err, told)
		}
		if spent := (after.TotalAlloc - before.TotalAlloc) >> 20; spent > 100 {
			t.Errorf("%s: %d MB", told, spent)
		}
		hangUp(t)
		servicestest.Eventually(t, func() bool { return strings.Contains(log.String(), told) }, told+" is not told")
		if limit := limitInUse(t, limiter, own.api); limit != 7 {
			t.Errorf("%s: limit %d is in use", told, limit)
		}
	}
}

// Nor does one end it while it starts, here for as long as the database is silent.
func TestHangUpDuringTheStart(t *testing.T) {
	database, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer database.Close()
	asked := make(chan struct{})
	go func() {
		if conn, err := database.Accept(); err == nil {
			defer conn.Close()
			close(asked)
			<-t.Context().Done()
		}
	}()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	cfg, err := config.Load(func(name string) string {
		return map[string]string{"ADDR": "127.0.0.1:0", "DATABASE_URL": "postgres://nobody@" + database.Addr().String() + "/nothing"}[name]
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() {
		_, err := newApp(ctx, cfg, io.Discard)
		started <- err
	}()
	select {
	case <-asked:
	case err := <-started:
		t.Fatal(err)
	}
	hangUp(t) // would end this test
	stop()
	if err := <-started; err == nil {
		t.Error("it started without its database")
	}
}

// Without a file a SIGHUP does not end the process.
func TestHangUpWithoutPolicies(t *testing.T) {
	var log syncBuffer
	startAppOn(t, &log, map[string]string{"LOG_LEVEL": "info"})
	hangUp(t)
	servicestest.Eventually(t, func() bool { return strings.Contains(log.String(), "hang-up ignored") }, "the hang-up was not told")
}

// documentedPolicies is the policy file that RATE_LIMITS.md shows.
func documentedPolicies(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile("../../RATE_LIMITS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```yaml\n")
	example, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("RATE_LIMITS.md shows no policy file")
	}
	return example
}

// Each role has the limit that the documented file gives it, from the request
// after it is read again on.
func TestTiersOfThePolicyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policies.yaml")
	writePolicies(t, path, documentedPolicies(t))
	a := startApp(t, map[string]string{"RATE_LIMIT_POLICIES": path})
	wants := func(token, policy, limit, remaining string) {
		t.Helper()
		w := a.do(http.MethodGet, "/api/v1/auth/session", "", "Authorization", "Bearer "+token)
		for name, want := range map[string]string{"RateLimit-Policy": policy, "X-RateLimit-Limit": limit, "X-RateLimit-Remaining": remaining} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	}
	viewer, editor, admin := a.signIn(t, "viewer@example.com"), a.signIn(t, "alice@example.com"), a.signIn(t, "admin@example.com")
	wants(viewer, `"api";q=600;w=60, "api-burst";q=20;w=1`, "20", "19")
	wants(editor, `"api";q=900;w=60, "api-burst";q=20;w=1`, "20", "19")
	wants(admin, `"api";q=3000;w=60, "api-burst";q=100;w=1`, "100", "99")

	writePolicies(t, path, "policies: [{name: api, limit: 2, window: 1h, tiers: {admin: 3}}]")
	hangUp(t)
	servicestest.Eventually(t, func() bool { return limitInUse(t, a.handlers.Limiter, models.Policy{Name: "api"}) == 2 }, "the file was not read again")
	tokens := map[string]string{"viewer": viewer, "editor": editor, "admin": admin}
	for role, limit := range map[string]int{"viewer": 2, "editor": 2, "admin": 3} {
		for i := range limit {
			w := a.do(http.MethodGet, "/api/v1/auth/session", "", "Authorization", "Bearer "+tokens[role])
			if want := fmt.Sprint(limit - 1 - i); w.Code != http.StatusOK || w.Header().Get("X-RateLimit-Remaining") != want {
				t.Errorf("%s, request %d: %d with %s remaining, want %s", role, i, w.Code, w.Header().Get("X-RateLimit-Remaining"), want)
			}
		}
		w := a.do(http.MethodGet, "/api/v1/auth/session", "", "Authorization", "Bearer "+tokens[role])
		if said := fmt.Sprintf(`\"api\" allows %d in 3600 seconds`, limit); w.Code != http.StatusTooManyRequests || !strings.Contains(w.Body.String(), said) {
			t.Errorf("%s is over the limit: %d %s, want %s", role, w.Code, w.Body, said)
		}
	}
}

// Who is on a deny list of the file is refused with 403: an address before its
// token is looked up, a user whatever the address.
func TestDenyListsOfThePolicyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policies.yaml")
	writePolicies(t, path, "policies: []")
	a := startApp(t, map[string]string{"RATE_LIMIT_POLICIES": path})
	alice, bearer := a.signIn(t, "alice@example.com"), func(token string) []string { return []string{"Authorization", "Bearer " + token} }
	session := func(headers ...string) *httptest.ResponseRecorder {
		return a.do(http.MethodGet, "/api/v1/auth/session", "", headers...)
	}
	var mine struct{ User models.UserRef }
	if err := json.Unmarshal(session(bearer(alice)...).Body.Bytes(), &mine); err != nil || mine.User.ID == "" {
		t.Fatalf("%+v, %v", mine, err)
	}
	denied := func(w *httptest.ResponseRecorder) bool {
		return w.Code == http.StatusForbidden && strings.Contains(w.Body.String(), "/problems/forbidden") && w.Header().Get("Retry-After") == ""
	}

	writePolicies(t, path, "policies: [{name: anonymous, limit: 9, window: 1m, deny: [192.0.2.1]}]") // where requests come from
	hangUp(t)
	servicestest.Eventually(t, func() bool { return denied(session()) }, "the address is not denied")
	for name, w := range map[string]*httptest.ResponseRecorder{
		"an unknown token": session(bearer("nobody's")...),
		"a sign-in":        a.do(http.MethodPost, "/api/v1/auth/login", `{"email": "alice@example.com", "password": "gatehouse-demo"}`),
	} {
		if !denied(w) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if w := session(bearer(alice)...); w.Code != http.StatusOK {
		t.Errorf("who is signed in: %d %s", w.Code, w.Body)
	}

	writePolicies(t, path, `policies: [{name: api, limit: 9, window: 1m, deny: ["user:`+mine.User.ID+`"]}]`)
	hangUp(t)
	servicestest.Eventually(t, func() bool { return denied(session(bearer(alice)...)) }, "the user is not denied")
}

// Sign-ins are denied by address too, IPv6 by its /56.
func TestDenyListOfSignIns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policies.yaml")
	writePolicies(t, path, `policies: [{name: login-ip, limit: 9, window: 1m, deny: ["2001:db8:7::/48", 198.51.100.7]}, {name: login-account, limit: 9, window: 1m, deny: ["::/0", "0.0.0.0/0"]}]`)
	a := startApp(t, map[string]string{"RATE_LIMIT_POLICIES": path, "TRUSTED_PROXIES": "192.0.2.1"})
	for client, want := range map[string]int{"2001:db8:7:2f00::1": 403, "2001:db8:8:2f00::1": 200, "198.51.100.7": 403, "198.51.100.8": 200} {
		for range 2 { // the second time from where she has signed in before
			w := a.do(http.MethodPost, "/api/v1/auth/login", `{"email": "alice@example.com", "password": "gatehouse-demo"}`,
				"Content-Type", "application/json", "X-Forwarded-For", client)
			if w.Code != want {
				t.Errorf("from %s: %d %s, want %d", client, w.Code, w.Body, want)
			}
		}
	}
}

// What the start says about hash tags is how the keys are at Redis.
func TestPlacementIsToldAtTheStart(t *testing.T) {
	server := servicestest.StartRedis(t)
	path := filepath.Join(t.TempDir(), "policies.yaml")
	writePolicies(t, path, "policies: [{name: api-burst, with: api, limit: 9, window: 1s}]")
	var log syncBuffer
	a := startAppOn(t, &log, map[string]string{
		"RATE_LIMIT_POLICIES": path, "REDIS_URL": "redis://" + server.Addr, "LOG_LEVEL": "info", "RATE_LIMIT_MAX": "100", "LOGIN_RATE_LIMIT_MAX": "100",
	})
	told := `by_common_key="api+api-burst, anonymous" by_group_name="login-ip+login-account {login}"`
	if n := strings.Count(log.String(), told); n != 1 {
		t.Errorf("told %d times in %s", n, log.String())
	}
	token := a.signIn(t, "alice@example.com")
	a.do(http.MethodGet, "/api/v1/auth/session", "", "Authorization", "Bearer "+token)
	placed := regexp.MustCompile(`(\{.*\})rate:[a-z0-9]+:([a-z-]+):(.*)`)
	tags := map[string]string{}
	for _, key := range strings.Fields(server.Do("KEYS", "*rate:*")) {
		part := placed.FindStringSubmatch(key)
		if part == nil {
			t.Fatalf("a key like %s", key)
		}
		tags[part[2]] = strings.Replace(part[1], part[3], "key", 1)
	}
	if want := map[string]string{"api": "{key}", "api-burst": "{key}", "anonymous": "{key}", "login-ip": "{login}", "login-account": "{login}"}; !maps.Equal(tags, want) {
		t.Errorf("placed by %v, want %v", tags, want)
	}

	writePolicies(t, path, "policies: []")
	hangUp(t)
	servicestest.Eventually(t, func() bool { return strings.Contains(log.String(), `by_common_key="api, anonymous"`) }, "not told again")
}
