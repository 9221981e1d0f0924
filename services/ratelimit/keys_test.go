package ratelimit

import (
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

func TestKeysAreBoundedAndTagged(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := limiterAt(t, server.Addr)
	a, b := perMinute("a", 5), models.Policy{Name: "b", Limit: 5000, Window: time.Hour}
	take(t, l, hitOf(a, "user:42"), hitOf(b, "user:42"))
	take(t, l, hitOf(a, "user:42"), hitOf(b, "ip:::1"))
	take(t, l, hitOf(a, ""))
	take(t, l, hitOf(a, "}{\r\n"+strings.Repeat("x", 10_000)))
	keys := strings.Split(server.Do("KEYS", "*"), "\n")
	for _, want := range []string{
		"test:{user:42}rate:log:a:user:42", "test:{user:42}rate:gcra3600:b:user:42",
		"test:{group}rate:log:a:user:42", "test:{group}rate:gcra3600:b:ip:::1",
	} {
		found := false
		for _, key := range keys {
			found = found || key == want
			if len(key) > 150 {
				t.Errorf("a key of %d bytes: %.200q", len(key), key)
			}
		}
		if !found {
			t.Errorf("no key %s in %q", want, keys)
		}
	}
	for _, key := range keys {
		if ttl := server.Do("PTTL", key); strings.HasPrefix(ttl, "-") && key != "test:probe" {
			t.Errorf("%s never expires (%s)", key, ttl)
		}
	}
	if len(keys) != 7 { // and test:probe
		t.Errorf("keys: %q", keys)
	}
}
