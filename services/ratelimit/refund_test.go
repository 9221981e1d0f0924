package ratelimit

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

func TestRefundAndReset(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *Limiter) {
		disabled := strings.HasSuffix(t.Name(), "disabled")
		for _, policy := range []models.Policy{
			perMinute("log", 2),
			{Name: "gcra", Limit: 20, Window: time.Minute, Algorithm: models.AlgorithmGCRA},
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
}

// Of two hits at once the refund takes back the units of one, and no other's.
func TestRefundTakesItsOwnEntries(t *testing.T) {
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
}

// Looking takes nothing and leaves nothing.
func TestPeekCountsNothing(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := limiterAt(t, server.Addr)
	for _, policy := range []models.Policy{
		perMinute("log", 3),
		{Name: "gcra", Limit: 30, Window: time.Hour, Algorithm: models.AlgorithmGCRA},
		{Name: "leased", Limit: 3, Window: time.Minute, Block: 2},
	} {
		keys := server.Do("DBSIZE")
		for left := int64(3); left >= 0; left-- {
			for range 5 {
				ds, err := l.Peek(t.Context(), "group", hitOf(policy, "k"))
				if err != nil || ds[0].Allowed != (left > 0) || ds[0].Remaining != left || ds[0].Admission != (models.Admission{}) {
					t.Fatalf("%s with %d left: %+v, %v", policy.Name, left, ds, err)
				}
			}
			if now := server.Do("DBSIZE"); left == 3 && now != keys {
				t.Errorf("%s: %s keys after a look, %s before", policy.Name, now, keys)
			}
			if d := takeOne(t, l, policy, "k"); d.Allowed != (left > 0) {
				t.Fatalf("%s with %d left: %+v", policy.Name, left, d)
			}
		}
	}
}
