package ratelimit

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

func TestRefund(t *testing.T) {
	t.Parallel()
	t.Run("a refund or a reset gives quota back", func(t *testing.T) {
		eachBackend(t, func(t *testing.T, l *Limiter) {
			disabled := strings.HasSuffix(t.Name(), "disabled")
			for _, policy := range []models.Policy{
				perMinute("log", 2),
				{Name: "gcra", Limit: 20, Window: 24 * time.Hour, Algorithm: models.AlgorithmGCRA},
			} {
				first := takeOne(t, l, policy, "k")
				takeOne(t, l, policy, "k")
				if d := takeOne(t, l, policy, "k"); d.Allowed {
					t.Fatalf("%s: third hit: %+v", policy.Name, d)
				}
				if err := l.Refund(t.Context(), first, models.Decision{}); err != nil {
					t.Fatal(err)
				}
				if err := l.Refund(t.Context(), first); policy.Name == "log" && err != nil {
					t.Fatal(err)
				}
				if policy.Name == "log" {
					if d := takeOne(t, l, policy, "k"); !d.Allowed || d.Remaining != 0 {
						t.Fatalf("%s: after the refund: %+v", policy.Name, d)
					}
					if d := takeOne(t, l, policy, "k"); d.Allowed {
						t.Fatalf("%s: a second refund of the same hit gave quota: %+v", policy.Name, d)
					}
				}
				err := l.Reset(t.Context(), "group", hitOf(policy, "k"))
				if disabled != errors.Is(err, models.ErrUnavailable) || !disabled && err != nil {
					t.Fatal(err)
				}
				if d := takeOne(t, l, policy, "k"); !d.Allowed || d.Remaining != 1 {
					t.Fatalf("%s: after the reset: %+v", policy.Name, d)
				}
			}
		})
	})

	// Of two hits at once the refund takes back the units of one, and no other's.
	t.Run("it takes the units of its own hit", func(t *testing.T) {
		server := servicestest.StartRedis(t)
		l := limiterAt(t, server.Addr)
		log, other := perMinute("log", 10), perMinute("other", 10)
		members := func(policy string) []string {
			return strings.Fields(server.Do("ZRANGE", "test:{k}rate:log:"+policy+":k", "0", "-1"))
		}
		take(t, l, models.Hit{Policy: log, Key: "k", Cost: 2}, hitOf(other, "k"))
		before := members("log")
		refunded := take(t, l, models.Hit{Policy: log, Key: "k", Cost: 3}, hitOf(other, "k"))
		if n := len(members("log")); n != 5 {
			t.Fatalf("%d members for 5 units", n)
		}
		if err := l.Refund(t.Context(), refunded[0]); err != nil {
			t.Fatal(err)
		}
		if after := members("log"); !slices.Equal(after, before) {
			t.Errorf("%q are left, want %q", after, before)
		}
		if n := len(members("other")); n != 2 {
			t.Errorf("the policy that was not refunded has %d members, want 2", n)
		}
	})

	// Without Redis the same.
	t.Run("a second one gives nothing back, without Redis", func(t *testing.T) {
		l := newLimiter(redistest.Start(t, redis.Options{Disabled: true}))
		for _, p := range countedPolicies() {
			var taken []models.Decision
			for range 5 {
				taken = append(taken, take(t, l, models.Hit{Policy: p, Key: "k"})...)
			}
			for range 3 {
				if err := l.Refund(t.Context(), taken[2]); err != nil {
					t.Fatal(err)
				}
			}
			if ds, err := l.Peek(t.Context(), "group", models.Hit{Policy: p, Key: "k"}); err != nil || ds[0].Remaining != 6 {
				t.Errorf("%s: %+v, %v, want 6 remaining", p.Name, ds, err)
			}
		}
	})

	// A refund gives back no more than its cost. That holds when the server's clock is behind what
	// it was at the admission, and when what it lost was put back.
	t.Run("it gives back its cost when the clock is put back", func(t *testing.T) {
		server := miniredis.RunT(t)
		l := embeddedAt(t, server.Addr())
		clock := time.Now()
		server.SetTime(clock)
		hit := models.Hit{Policy: countedPolicies()[0], Key: "k"}
		taken := take(t, l, hit)[0]
		server.FlushAll()
		server.SetTime(clock.Add(-time.Hour))
		for range 5 {
			take(t, l, hit)
		}
		if err := l.Refund(t.Context(), taken); err != nil {
			t.Fatal(err)
		}
		if ds, err := l.Peek(t.Context(), "group", hit); err != nil || ds[0].Remaining != 5 {
			t.Errorf("%+v, %v, want 5 of 10 remaining", ds, err)
		}
	})

	// A refund after a reset by another instance gives no more than was taken since. Of a log or a
	// block, whose units have names, it gives nothing.
	t.Run("after a reset elsewhere it gives what was taken since", func(t *testing.T) {
		server := miniredis.RunT(t)
		server.SetTime(time.Now())
		l, other := embeddedAt(t, server.Addr()), embeddedAt(t, server.Addr())
		for _, row := range []struct {
			policy models.Policy
			since  int   // taken after the reset
			left   int64 // of 10, after the refunds
		}{
			{models.Policy{Name: "log", Limit: 10, Window: time.Hour}, 7, 3},
			{countedPolicies()[0], 7, 10},
			{countedPolicies()[1], 7, 3},
		} {
			hit := models.Hit{Policy: row.policy, Key: "k"}
			var before []models.Decision
			for range 10 {
				before = append(before, take(t, l, hit)...)
			}
			if err := other.Reset(t.Context(), "group", hit); err != nil {
				t.Fatal(err)
			}
			for range row.since {
				take(t, other, hit)
			}
			if err := l.Refund(t.Context(), before...); err != nil {
				t.Fatal(err)
			}
			ds, err := other.Peek(t.Context(), "group", hit)
			if err != nil || ds[0].Remaining != row.left {
				t.Errorf("%s: %+v, %v, want %d of 10 remaining", row.policy.Name, ds, err, row.left)
			}
		}
	})
}
