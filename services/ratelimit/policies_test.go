package ratelimit

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

const samplePolicies = `# the front door
policies:
  - name: api
    limit: 3
    window: 1m
    allow: [10.0.0.0/8, "user:1"]
    deny: [192.0.2.7]
  - name: api-burst
    with: api
    limit: 2
    window: 1s
    algorithm: sliding-log
    on_redis_down: closed
    lease: 1
    tiers:
      silver: 3
      gold: 4
`

func knownPolicies() map[string][]string {
	return map[string][]string{"api": {"bronze", "silver", "gold", "platinum"}, "login": nil}
}

func TestParsePoliciesNamesTheLine(t *testing.T) {
	if _, err := ParsePolicies("p.yaml", []byte(samplePolicies), knownPolicies()); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^p\.yaml:\d+: `)
	for _, row := range []struct{ name, old, new, want string }{
		{"no limit", "limit: 3", "limit: 0", "p.yaml:4: "},
		{"a large limit", "limit: 3", "limit: 9999999", "p.yaml:4: "},
		{"not a number", "limit: 3", "limit: three", "p.yaml:4: "},
		{"a window too short", "window: 1s", "window: 10ms", "p.yaml:11: "},
		{"not a duration", "window: 1s", "window: often", "p.yaml:11: "},
		{"an unknown algorithm", "sliding-log", "leaky", "p.yaml:12: "},
		{"an unknown failure policy", "closed", "panic", "p.yaml:13: "},
		{"a lease above the limit", "lease: 1", "lease: 7", "p.yaml:14: "},
		{"an unknown field", "lease: 1", "leash: 1", "p.yaml:14: "},
		{"a bad network", "10.0.0.0/8", "10.0.0.0/99", "p.yaml:6: "},
		{"a bad address", "192.0.2.7", "192.0.2/7", "p.yaml:7: "},
		{"an unknown policy", "name: api\n", "name: ape\n", "p.yaml:3: "},
		{"an unknown companion", "with: api", "with: ape", "p.yaml:9: "},
		{"twice", "name: api-burst\n    with: api", "name: api", "p.yaml:8: "},
		{"a companion that is known", "name: api-burst", "name: login", "p.yaml:9: "},
		{"a tier nobody has", "gold: 4", "lead: 4", "p.yaml:17: "},
		{"a tier's limit", "silver: 3", "silver: 0", "p.yaml:16: "},
		{"a tier's limit that the log cannot count", "gold: 4", "gold: 1001", "p.yaml:17: "},
		{"a tier's limit that is no number", "gold: 4", "gold: {limit: 4}", "p.yaml:17: "},
		{"a tier twice", "gold: 4", "silver: 4", "p.yaml:17: "},
		{"tiers where nobody has one", "  - name: api-burst\n    with: api", "  - name: login\n    shadow: false", "p.yaml:17: "},
		{"no limit given", "    limit: 3\n", "", "p.yaml:3: "},
		{"not YAML", "policies:", "policies: [", "p.yaml:"}, // where it ends is a matter of taste
		{"an unknown alias", "limit: 3", "limit: *three", "p.yaml:4: "},
		{"an unknown alias to merge", "lease: 1", "<<: *lease", "p.yaml:14: "},
		{"half a unit", "limit: 3", "limit: 3.7", "p.yaml:4: "},
		{"half a unit of a tier", "gold: 4", "gold: 4.5", "p.yaml:17: "},
		{"half a unit of a lease", "lease: 1", "lease: 1.5", "p.yaml:14: "},
		{"no end of units", "limit: 3", "limit: .inf", "p.yaml:4: "},
		{"a second document", "  - name: api-burst", "---\npolicies:\n  - name: api-burst", "p.yaml:9: "},
	} {
		_, err := ParsePolicies("p.yaml", []byte(strings.Replace(samplePolicies, row.old, row.new, 1)), knownPolicies())
		if err == nil || !strings.HasPrefix(err.Error(), row.want) || !line.MatchString(err.Error()) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s...", row.name, err, row.want)
		}
	}
	if set, err := ParsePolicies("p.yaml", []byte("policies: [{name: api, limit: &all 3, window: 1m, lease: *all}]"), knownPolicies()); err != nil || set.byName["api"].Lease != 3 {
		t.Errorf("an alias: %+v, %v", set, err)
	}
	for half, at := range map[string]int{"": 1, "policies:\n": 1, "# nothing\n": 1, "---\n# nothing\n---\n": 1, "# these\n# are\npolicies:\n": 3} { // as while it is written
		if _, err := ParsePolicies("p.yaml", []byte(half), knownPolicies()); err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("p.yaml:%d: policies: ", at)) {
			t.Errorf("%q: %v", half, err)
		}
	}
	for _, empty := range []string{"---\npolicies: []\n", "policies: []\n...\n"} {
		if set, err := ParsePolicies("p.yaml", []byte(empty), knownPolicies()); err != nil || len(set.byName) != 0 {
			t.Errorf("%q: %v, %v", empty, set, err)
		}
	}
}

func TestConfiguredPolicies(t *testing.T) {
	l := limiterOn(t, false)
	set, err := ParsePolicies("p.yaml", []byte(strings.Replace(samplePolicies, "lease: 1", "lease: 0", 1)), knownPolicies())
	if err != nil {
		t.Fatal(err)
	}
	own := models.Policy{Name: "api", Limit: 100, Window: time.Minute}
	hit := func(key string) models.Hit { return models.Hit{Policy: own, Key: key} }
	if d := takeAs(t, l, hit("k"))[0]; d.Policy.Limit != 100 {
		t.Fatalf("before: %+v", d)
	}
	l.Configure(set)
	for i, want := range []bool{true, true, false, false} { // the companion allows 2 a second
		ds := takeAs(t, l, hit("user:9"))
		if len(ds) != 2 || ds[0].Policy.Limit != 3 || ds[1].Policy.Name != "api-burst" || ds[0].With != "" || ds[1].With != "api" || (ds[0].Allowed && ds[1].Allowed) != want {
			t.Fatalf("hit %d: %+v", i, ds)
		}
	}
	for range 5 {
		if ds := takeAs(t, l, hit("ip:10.1.2.3")); !ds[0].Allowed || ds[0].Admission != (models.Admission{}) {
			t.Fatalf("allowed: %+v", ds)
		}
	}
	if ds := takeAs(t, l, hit("ip:192.0.2.7")); ds[0].Allowed || !ds[0].Barred || ds[0].RetryAfter != time.Minute || !ds[1].Allowed || ds[1].Barred {
		t.Fatalf("denied: %+v", ds)
	}
	if ds, err := l.Peek(t.Context(), "group", hit("ip:192.0.2.7")); err != nil || !ds[0].Barred {
		t.Fatalf("a look at who is denied: %+v, %v", ds, err)
	}
	l.Configure(nil)
	if ds := takeAs(t, l, hit("user:9")); len(ds) != 1 || ds[0].Policy.Limit != 100 || !ds[0].Allowed {
		t.Fatalf("after: %+v", ds)
	}
}

// A tier has its own limit, or that of the next lower one that has one.
func TestConfiguredTiers(t *testing.T) {
	l := limiterOn(t, false)
	set, err := ParsePolicies("p.yaml", []byte(samplePolicies), knownPolicies())
	if err != nil {
		t.Fatal(err)
	}
	l.Configure(set)
	own := models.Policy{Name: "api", Limit: 100, Window: time.Minute}
	for tier, want := range map[string]int64{"": 2, "unheard-of": 2, "bronze": 2, "silver": 3, "gold": 4, "platinum": 4} {
		hit := models.Hit{Policy: models.Policy{Name: "api-burst", Limit: 100, Window: time.Minute}, Key: "user:" + tier, Tier: tier}
		if p := l.Effective(hit); p.Limit != want || p.Lease != 1 {
			t.Errorf("tier %q: effective %+v, want limit %d", tier, p, want)
		}
		ds := takeAs(t, l, models.Hit{Policy: own, Key: "user:" + tier, Tier: tier})
		if ds[0].Policy.Limit != 3 || ds[1].Policy.Limit != want || ds[1].Remaining != want-1 {
			t.Errorf("tier %q: %+v, want limits 3 and %d", tier, ds, want)
		}
	}
	if p := l.Effective(models.Hit{Policy: models.Policy{Name: "other", Limit: 5}, Tier: "gold"}); p.Limit != 5 {
		t.Errorf("a policy that the file does not have: %+v", p)
	}
}

func TestPlacementIsWhereHitsAreCounted(t *testing.T) {
	set, err := ParsePolicies("p.yaml", []byte(strings.Replace(samplePolicies, "lease: 1", "lease: 0", 1)), knownPolicies())
	if err != nil {
		t.Fatal(err)
	}
	api, other := models.Policy{Name: "api", Limit: 9, Window: time.Minute}, models.Policy{Name: "other", Limit: 9, Window: time.Minute}
	for _, row := range []struct {
		hits     []models.Hit
		policies string
		tag      string
	}{
		{[]models.Hit{{Policy: other, Key: "alone"}}, "other", "alone"},
		{[]models.Hit{{Policy: api, Key: "k"}}, "api api-burst", "k"},
		{[]models.Hit{{Policy: api, Key: "both"}, {Policy: other, Key: "both"}}, "api other api-burst", "both"},
		{[]models.Hit{{Policy: api, Key: "one"}, {Policy: other, Key: "two"}}, "api other api-burst", "group"},
	} {
		server := servicestest.StartRedis(t)
		l := limiterAt(t, server.Addr, false)
		l.Configure(set)
		policies, tag, err := l.Placement("group", row.hits...)
		if err != nil || strings.Join(policies, " ") != row.policies || tag != row.tag {
			t.Errorf("%q by %q, %v, want %q by %q", policies, tag, err, row.policies, row.tag)
		}
		if keys := server.Do("KEYS", "*rate:*"); keys != "" {
			t.Errorf("placement left %q", keys)
		}
		takeAs(t, l, row.hits...)
		keys := strings.Fields(server.Do("KEYS", "*rate:*"))
		for _, key := range keys {
			if !strings.HasPrefix(key, "test:{"+row.tag+"}") {
				t.Errorf("%q is counted at %s", row.policies, key)
			}
		}
		if len(keys) != len(policies) {
			t.Errorf("%q have the keys %q", policies, keys)
		}
	}
}
