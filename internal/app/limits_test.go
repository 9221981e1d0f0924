package app

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/ratelimit"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

// Only a trusted proxy says which client is counted; that of anybody else is
// told, once, and counted as one client.
func TestProxyThatIsTrustedOrNot(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, trusted string
		header        string
		warnings      int
		remaining     []string // of three clients behind the proxy
	}{
		{"not trusted", "", "X-Forwarded-For", 1, []string{"9", "8", "7"}},
		{"another is trusted", "198.51.100.0/24", "X-Forwarded-For", 1, []string{"9", "8", "7"}},
		{"trusted", "192.0.2.0/24", "X-Forwarded-For", 0, []string{"9", "9", "8"}}, // the last two in one /56
		{"trusted, but the client may have made it up", "192.0.2.0/24", "X-Real-IP", 1, []string{"9", "8", "7"}},
	} {
		var log servicestest.LogLines
		a := startAppOn(t, &log, map[string]string{"TRUSTED_PROXIES": row.trusted, "RATE_LIMIT_MAX": "10", "LOG_LEVEL": "warn"})
		for i, client := range []string{"203.0.113.5", "2001:db8:0:1::1", "2001:db8:0:2::1"} {
			w := a.do(http.MethodGet, "/api/v1/auth/session", "", row.header, client) // from 192.0.2.1
			if got := w.Header().Get("X-RateLimit-Remaining"); got != row.remaining[i] {
				t.Errorf("%s: %s remaining for %s, want %s", row.name, got, client, row.remaining[i])
			}
		}
		if lines := log.With("TRUSTED_PROXIES"); len(lines) != row.warnings {
			t.Errorf("%s: %d warnings: %s", row.name, len(lines), lines)
		}
	}
}

// An address that is over its limit is refused before its token is looked up, and so
// also while the database cannot be asked.
func TestAddressOverItsLimitCostsNoLookUp(t *testing.T) {
	t.Parallel()
	a := startApp(t, map[string]string{"RATE_LIMIT_MAX": "2", "RATE_LIMIT_WINDOW": "1h", "TRUSTED_PROXIES": "192.0.2.1"})
	from := func(address, token string) int {
		return a.api(strings.Repeat(token, 43), http.MethodGet, "/auth/session", "", "X-Forwarded-For", address).Code
	}
	for range 2 {
		if code := from("198.51.100.7", "A"); code != http.StatusUnauthorized {
			t.Fatalf("an unknown token: %d", code)
		}
	}
	if err := a.handlers.Database.(*store.Store).Close(); err != nil {
		t.Fatal(err)
	}
	if code := from("198.51.100.8", "E"); code != http.StatusServiceUnavailable {
		t.Errorf("within the limit, its token cannot be looked up: %d, want 503", code)
	}
	if code := from("198.51.100.7", "I"); code != http.StatusTooManyRequests {
		t.Errorf("over the limit: %d, want 429", code)
	}
}

// Without Redis the limits may be off, those on guessing passwords never.
func TestSignInsAreLimitedWithoutRedis(t *testing.T) {
	t.Parallel()
	for policy, others := range map[string]string{"open": "1", "local": "100"} { // open: the other limits would refuse the second guess
		a := startCutOff(t, map[string]string{"RATE_LIMIT_ON_REDIS_DOWN": policy, "RATE_LIMIT_MAX": others, "LOGIN_RATE_LIMIT_MAX": "2"})
		for i, want := range []int{http.StatusUnauthorized, http.StatusUnauthorized, http.StatusTooManyRequests} {
			if w := a.login("alice@example.com", "a wrong guess"); w.Code != want {
				t.Errorf("%s, guess %d answers %d, want %d: %s", policy, i+1, w.Code, want, w.Body)
			}
		}
	}
}

// What an instance has at hand of a lease is there for the others once it has
// shut down.
func TestLeasesAreReturnedOnShutdown(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	a := startApp(t, map[string]string{
		"REDIS_URL": "redis://" + server.Addr, "RATE_LIMIT_MAX": "100", "RATE_LIMIT_WINDOW": "1h", "RATE_LIMIT_LEASE": "64",
	})
	address := models.Hit{Policy: newPolicies(a.config).anonymous, Key: "ip:192.0.2.1"}
	for range 40 { // blocks of 1, 2, 4, 8, 16 and 32: 23 units are left of the last
		a.do(http.MethodGet, "/api/v1/auth/session", "")
	}
	rdb := redis.New(redis.Options{Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}, KeyPrefix: a.config.RedisKeyPrefix, Timeout: time.Minute})
	defer func() { _ = rdb.Close(t.Context()) }()
	rdb.WaitReady(t.Context())
	other := ratelimit.New(rdb, ratelimit.Options{})
	wants := func(remaining int64) {
		t.Helper()
		if ds, err := other.Peek(t.Context(), "anonymous", address); err != nil || ds[0].Degraded || ds[0].Remaining != remaining {
			t.Errorf("%+v, %v, want %d remaining", ds, err, remaining)
		}
	}
	wants(37)
	if err := a.close(); err != nil {
		t.Error(err)
	}
	wants(60)
}

// Guesses sent at once are counted before any is looked up; a good token counts
// nothing against its address, warm or not.
func TestGuessesAtOnceAreCounted(t *testing.T) {
	t.Parallel()
	const limit = 20
	path := newDatabase(t)
	warm := startApp(t, map[string]string{"DATABASE_URL": path})
	a := startApp(t, map[string]string{"DATABASE_URL": path, "RATE_LIMIT_MAX": fmt.Sprint(limit)})
	for range 3 { // this instance has not seen their tokens
		token := warm.signIn(t, "alice@example.com")
		if w := a.api(token, http.MethodGet, "/auth/session", ""); w.Code != http.StatusOK || !strings.Contains(w.Header().Get("RateLimit"), `"api"`) {
			t.Fatalf("%d %v", w.Code, w.Header())
		}
	}
	var looked, refused atomic.Int64
	var wg sync.WaitGroup
	for i := range 5 * limit {
		wg.Go(func() {
			guess := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%032d", i))
			switch w := a.api(guess, http.MethodGet, "/auth/session", ""); w.Code {
			case http.StatusUnauthorized:
				looked.Add(1)
			case http.StatusTooManyRequests:
				refused.Add(1)
			default:
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	wg.Wait()
	if looked.Load() != limit || refused.Load() != 4*limit {
		t.Errorf("%d guesses looked up and %d refused, want %d and %d", looked.Load(), refused.Load(), limit, 4*limit)
	}
	metrics := a.do(http.MethodGet, "/metrics", "").Body.String()
	if !strings.Contains(metrics, fmt.Sprintf(`gatehouse_session_reads_total{source="none"} %d`, limit)) {
		t.Error("more guesses were looked up than allowed")
	}
	if !strings.Contains(metrics, fmt.Sprintf(`gatehouse_rate_limit_decisions_total{policy="anonymous",result="denied"} %d`, 4*limit)) {
		t.Error("the metrics do not tell of the refusals")
	}
}
