package services_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
)

func TestRateLimitRefundAndReset(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *services.RateLimiter) {
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
		if err := l.Refund(t.Context(), models.Decision{ID: "nonsense"}); err == nil {
			t.Error("refunding nonsense succeeded")
		}
	})
}
