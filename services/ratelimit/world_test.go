package ratelimit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

func newLimiter(rdb *redis.Client) *Limiter { return New(rdb, Options{Logger: redistest.Quiet()}) }

// limiterAt is a limiter of a real server whose calls may take as long as this machine needs.
func limiterAt(t testing.TB, addr string) *Limiter {
	t.Helper()
	return newLimiter(redistest.New(t, addr))
}

// impatientAt is a limiter that notices soon that Redis is away.
func impatientAt(t testing.TB, addr string) *Limiter {
	t.Helper()
	return newLimiter(redistest.Impatient(t, addr))
}

// embeddedAt is limiterAt for a miniredis.
func embeddedAt(t testing.TB, addr string) *Limiter {
	t.Helper()
	return newLimiter(redistest.At(t, addr, redis.Options{Embedded: true}))
}

// limiterWithClock is a limiter of a server whose clock the test sets.
func limiterWithClock(t testing.TB) (*Limiter, *miniredis.Miniredis) {
	t.Helper()
	server := miniredis.RunT(t)
	return embeddedAt(t, server.Addr()), server
}

// eachBackend runs a test with a real Redis, with the embedded one, and without.
func eachBackend(t *testing.T, test func(t *testing.T, l *Limiter)) {
	for _, backend := range []string{"real", "embedded"} {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			test(t, newLimiter(redistest.Of(t, backend)))
		})
	}
	t.Run("disabled", func(t *testing.T) {
		t.Parallel()
		test(t, newLimiter(redistest.Start(t, redis.Options{Disabled: true})))
	})
}

func perMinute(name string, limit int64) models.Policy {
	return models.Policy{Name: name, Limit: limit, Window: time.Minute}
}

func hitOf(policy models.Policy, key string) models.Hit { return models.Hit{Policy: policy, Key: key} }

func take(t testing.TB, l *Limiter, hits ...models.Hit) []models.Decision {
	t.Helper()
	decisions, err := l.Take(t.Context(), "group", hits...)
	if err != nil {
		t.Fatal(err)
	}
	return decisions
}

// takeOne is the decision about a single hit.
func takeOne(t testing.TB, l *Limiter, policy models.Policy, key string) models.Decision {
	t.Helper()
	return take(t, l, hitOf(policy, key))[0]
}

func peek(t testing.TB, l *Limiter, hits ...models.Hit) []models.Decision {
	t.Helper()
	decisions, err := l.Peek(t.Context(), "group", hits...)
	if err != nil {
		t.Fatal(err)
	}
	return decisions
}

// scriptsRun is how many scripts the server has run.
func scriptsRun(t testing.TB, server *servicestest.RedisServer) (n int) {
	t.Helper()
	for _, command := range []string{"cmdstat_evalsha:calls=", "cmdstat_eval:calls="} {
		if _, rest, found := strings.Cut(server.Do("INFO", "commandstats"), command); found {
			calls := 0
			if _, err := fmt.Sscanf(rest, "%d", &calls); err != nil {
				t.Fatal(err)
			}
			n += calls
		}
	}
	if n == 0 {
		t.Fatal("the server does not count scripts")
	}
	return n
}
