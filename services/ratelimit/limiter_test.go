package ratelimit

import (
	"errors"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
)

func TestAdmitsTheLimit(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *Limiter) {
		policy := perMinute("p", 3)
		for i := range int64(3) {
			if d := takeOne(t, l, policy, "k"); !d.Allowed || d.Remaining != 2-i || d.RetryAfter != 0 || d.Admission == (models.Admission{}) || d.Policy != policy {
				t.Fatalf("hit %d: %+v", i, d)
			}
		}
		for range 3 { // by Redis, then from memory
			d := takeOne(t, l, policy, "k")
			if d.Allowed || d.Remaining != 0 || d.Admission != (models.Admission{}) || d.RetryAfter < 55*time.Second || d.RetryAfter > time.Minute ||
				d.ResetAfter < 55*time.Second || d.ResetAfter > time.Minute {
				t.Fatalf("over the limit: %+v", d)
			}
		}
		if d := takeOne(t, l, policy, "other"); !d.Allowed {
			t.Fatalf("another key: %+v", d)
		}
	})
}

func TestCosts(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *Limiter) {
		policy := perMinute("p", 10)
		hit := func(cost int64) models.Decision {
			return take(t, l, models.Hit{Policy: policy, Key: "k", Cost: cost})[0]
		}
		if d := hit(7); !d.Allowed || d.Remaining != 3 {
			t.Fatalf("cost 7: %+v", d)
		}
		if d := hit(4); d.Allowed || d.Remaining != 3 || d.RetryAfter == 0 {
			t.Fatalf("cost 4: %+v", d)
		}
		if d := hit(3); !d.Allowed || d.Remaining != 0 {
			t.Fatalf("cost 3, although 4 was refused: %+v", d)
		}
		if d := hit(-1); !d.Allowed || d.Admission != (models.Admission{}) {
			t.Fatalf("a hit that takes nothing: %+v", d)
		}
		if d := take(t, l, models.Hit{Policy: policy, Key: "new", Cost: 1 << 60})[0]; d.Allowed || d.Remaining != 10 {
			t.Fatalf("more than the limit: %+v", d)
		}
	})
}

func TestAllOrNothing(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *Limiter) {
		wide, narrow := perMinute("wide", 10), perMinute("narrow", 1)
		for _, keys := range [][2]string{{"same", "same"}, {"one", "two"}} {
			hits := []models.Hit{hitOf(wide, keys[0]), hitOf(narrow, keys[1])}
			if ds := take(t, l, hits...); !ds[0].Allowed || !ds[1].Allowed || ds[0].Remaining != 9 {
				t.Fatalf("first: %+v", ds)
			}
			for range 3 {
				ds := take(t, l, hits...)
				if !ds[0].Allowed || ds[1].Allowed || ds[0].Remaining != 9 || ds[0].Admission != (models.Admission{}) {
					t.Fatalf("refused together, nothing is counted: %+v", ds)
				}
			}
			ds, err := l.Peek(t.Context(), "group", hits...)
			if err != nil || ds[0].Remaining != 9 || ds[1].Allowed {
				t.Fatalf("peek: %+v, %v", ds, err)
			}
		}
	})
}

func TestShadowNeverRefuses(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *Limiter) {
		shadow, strict := perMinute("shadow", 1), perMinute("strict", 3)
		shadow.Shadow = true
		for i := range int64(3) {
			ds := take(t, l, hitOf(shadow, "k"), hitOf(strict, "k"))
			if !ds[0].Allowed || !ds[1].Allowed || ds[1].Remaining != 2-i {
				t.Fatalf("hit %d: %+v", i, ds)
			}
			if would := ds[0].RetryAfter > 0; would != (i > 0) {
				t.Fatalf("hit %d: the shadow tells %v", i, ds[0].RetryAfter)
			}
		}
		if ds := take(t, l, hitOf(shadow, "k"), hitOf(strict, "k")); ds[1].Allowed {
			t.Fatalf("over the real limit: %+v", ds)
		}
	})
}

func TestRefusesBadPolicies(t *testing.T) {
	l := newLimiter(redistest.Start(t, redis.Options{Disabled: true}))
	ok := perMinute("ok", 1)
	for _, hits := range [][]models.Hit{
		{hitOf(models.Policy{Name: "no limit", Window: time.Minute}, "k")},
		{hitOf(models.Policy{Name: "p", Limit: 1, Window: time.Millisecond}, "k")},
		{hitOf(models.Policy{Name: "p", Limit: 1001, Window: time.Minute, Algorithm: models.AlgorithmSlidingLog}, "k")},
		{hitOf(ok, "k"), hitOf(ok, "k")},
	} {
		if _, err := l.Take(t.Context(), "group", hits...); err == nil || errors.Is(err, models.ErrUnavailable) {
			t.Errorf("%+v: %v", hits, err)
		}
	}
	if ds, err := l.Take(t.Context(), "group"); ds != nil || err != nil {
		t.Errorf("no hits: %v, %v", ds, err)
	}
}
