package session_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// Two caches with databases and prefixes of their own live in one program, on one Redis and on
// one metrics registry, and know nothing of each other.
func TestTwoCachesInOneProgram(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	registry := prometheus.NewRegistry()
	start := func(name string) *session.Cache {
		metrics := prometheus.WrapRegistererWith(prometheus.Labels{"site": name}, registry)
		rdb := redistest.Start(t, redis.Options{
			Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}, KeyPrefix: name + ":", Metrics: metrics,
		})
		redistest.WaitReady(t, rdb)
		cache, err := session.NewCache(rdb, newMapDatabase(), session.Options{Logger: redistest.Quiet(), Metrics: metrics})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := cache.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return cache
	}
	ann := models.Session{User: models.UserRef{ID: "1", Email: "ann@example.com"}}
	caches, tokens := map[string]*session.Cache{"shop": start("shop"), "desk": start("desk")}, map[string]string{}
	for name, cache := range caches {
		token, _, err := cache.Create(t.Context(), ann)
		if err != nil {
			t.Fatal(err)
		}
		tokens[name] = token
	}
	if _, err := caches["desk"].Get(t.Context(), tokens["shop"]); !errors.Is(err, models.ErrNotFound) {
		t.Errorf("a token of the other cache: %v", err)
	}
	if err := caches["shop"].DeleteUser(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := caches["shop"].Get(t.Context(), tokens["shop"]); !errors.Is(err, models.ErrNotFound) {
		t.Errorf("an ended session: %v", err)
	}
	if s, err := caches["desk"].Get(t.Context(), tokens["desk"]); err != nil || s.User.Email != ann.User.Email {
		t.Errorf("the session of the other cache: %+v, %v", s, err)
	}
	for _, name := range slices.Sorted(maps.Keys(caches)) {
		if keys := strings.Fields(server.Do("KEYS", name+":session:*")); len(keys) != 1 {
			t.Errorf("keys of %s: %q", name, keys)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "gatehouse_session_memory_bytes" && len(family.GetMetric()) == 2 {
			return
		}
	}
	t.Error("the metrics of both caches are not on the registry")
}
