package e2e

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gatehouse/e2e/document"
	"gatehouse/services/servicestest"
)

// TestOperationsMetrics: OPERATIONS.md has every metric that there is, and no other.
func TestOperationsMetrics(t *testing.T) {
	t.Parallel()
	a := start(t)
	w := &world{app: a, alice: a.signIn(t, "alice@example.com")}
	w.acquire(t, w.alice, "1", map[string]any{"ttl": 120})
	names := func(pattern, text string) (all []string) {
		for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			all = append(all, found[1])
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	there := names(`(?m)^# HELP (gatehouse_\w+)`, string(a.anonymous().send(t, "GET /metrics", nil).is(t, 200).Body))
	text := document.Read(t, "OPERATIONS.md").Text
	if told := names("(?m)^\\| `(gatehouse_\\w+)` ", text); len(there) == 0 || !slices.Equal(told, there) {
		t.Errorf("the table has\n%s\nand there are\n%s", strings.Join(told, "\n"), strings.Join(there, "\n"))
	}
	for _, used := range names(`(gatehouse_\w+)`, text) {
		if !slices.Contains(there, strings.TrimSuffix(used, "_count")) {
			t.Errorf("there is no %s", used)
		}
	}
}

// TestOperationsRedisUser: the user of Redis that OPERATIONS.md creates is enough.
func TestOperationsRedisUser(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	created := 0
	for _, b := range document.Read(t, "OPERATIONS.md").Blocks {
		if b.Language == "acl" {
			server.Do(strings.Fields(b.Text)...)
			created++
		}
	}
	if created != 1 {
		t.Fatalf("%d users", created)
	}
	user := url.URL{Scheme: "redis", User: url.UserPassword("gatehouse", "secret"), Host: server.Addr}
	a := start(t, "REDIS_URL="+user.String())
	a.anonymous().send(t, "GET /readyz", nil).is(t, 200).with(t, "status", "ok").with(t, "components.redis.status", "ok")
	w := &world{app: a, alice: a.signIn(t, "alice@example.com")}
	w.acquire(t, w.alice, "1", map[string]any{"ttl": 120}).with(t, "degraded", false)
	if log := a.Said(); strings.Contains(log, "level=WARN") {
		t.Errorf("the log warns:\n%s", log)
	}
}
