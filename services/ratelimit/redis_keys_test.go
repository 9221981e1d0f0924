package ratelimit

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

func TestRedisKeys(t *testing.T) {
	t.Parallel()
	t.Run("they are bounded, tagged, and expire", func(t *testing.T) {
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
	})

	// The memory of a key at Redis is what RATE_LIMITS.md says, and within bounds.
	t.Run("they take as much memory as RATE_LIMITS.md says", func(t *testing.T) {
		doc, err := os.ReadFile("../../RATE_LIMITS.md")
		if err != nil {
			t.Fatal(err)
		}
		figures := regexp.MustCompile(`10 entries ([\d,]+) bytes, 100 entries ([\d,]+), 1,000 entries\s+([\d,]+) .*, GCRA ([\d,]+)\.`).FindStringSubmatch(string(doc))
		if figures == nil {
			t.Fatal("RATE_LIMITS.md has no figures")
		}
		server := servicestest.StartRedis(t)
		l := limiterAt(t, server.Addr)
		for i, entries := range []int{10, 100, 1000, 0} {
			policy, kind := models.Policy{Name: "api", Limit: 1000, Window: time.Hour}, "log"
			if entries == 0 {
				policy.Algorithm, kind = models.AlgorithmGCRA, "gcra3600"
			}
			for range max(5, entries) {
				takeOne(t, l, policy, "user:4"+fmt.Sprint(i))
			}
			bytes, err := strconv.Atoi(server.Do("MEMORY", "USAGE", fmt.Sprintf("test:{user:4%d}rate:%s:api:user:4%d", i, kind, i), "SAMPLES", "0"))
			if err != nil {
				t.Fatal(err)
			}
			said, err := strconv.Atoi(strings.ReplaceAll(figures[1+i], ",", ""))
			if err != nil {
				t.Fatal(err)
			}
			if entries == 100 && bytes > 2200 {
				t.Errorf("%d bytes for 100 entries, want at most 2,200", bytes)
			}
			if bytes > said*11/10 || bytes < said*9/10 {
				t.Errorf("%s with %d entries: %d bytes, RATE_LIMITS.md says %d", kind, entries, bytes, said)
			}
		}
	})
}
