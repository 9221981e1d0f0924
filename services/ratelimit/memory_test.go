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

// The memory of a key at Redis is what RATE_LIMITS.md says, and within bounds.
func TestMemory(t *testing.T) {
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
}
