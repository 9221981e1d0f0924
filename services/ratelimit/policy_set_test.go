package ratelimit

import (
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// sampleSet is a set of api, and of api-burst that goes along with it and takes blocks of a size.
func sampleSet(t *testing.T, lease Lease) *PolicySet {
	t.Helper()
	set, err := NewPolicySet([]PolicyEntry{
		{Name: "api", Limit: 3, Window: "1m", Allow: []string{"10.0.0.0/8", "user:1"}, Deny: []string{"192.0.2.7"}},
		{
			Name: "api-burst", With: "api", Limit: 2, Window: "1m", Algorithm: models.AlgorithmSlidingLog, OnRedisDown: models.OnRedisDownClosed,
			Block: &lease, Tiers: map[string]int64{"silver": 3, "gold": 4},
		},
	}, map[string][]string{"api": {"bronze", "silver", "gold", "platinum"}, "login": nil})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestPolicySet(t *testing.T) {
	t.Parallel()
	t.Run("its policies count in place of those in the code", func(t *testing.T) {
		l := limiterAt(t, servicestest.StartRedis(t).Addr)
		set := sampleSet(t, 0)
		own := models.Policy{Name: "api", Limit: 100, Window: time.Minute}
		hit := func(key string) models.Hit { return models.Hit{Policy: own, Key: key} }
		if d := take(t, l, hit("k"))[0]; d.Policy.Limit != 100 {
			t.Fatalf("before: %+v", d)
		}
		l.Configure(set)
		for i, want := range []bool{true, true, false, false} { // the companion allows 2
			ds := take(t, l, hit("user:9"))
			if len(ds) != 2 || ds[0].Policy.Limit != 3 || ds[1].Policy.Name != "api-burst" || ds[0].With != "" || ds[1].With != "api" || (ds[0].Allowed && ds[1].Allowed) != want {
				t.Fatalf("hit %d: %+v", i, ds)
			}
		}
		for range 5 {
			if ds := take(t, l, hit("ip:10.1.2.3")); !ds[0].Allowed || ds[0].Admission != (models.Admission{}) {
				t.Fatalf("allowed: %+v", ds)
			}
		}
		if ds := take(t, l, hit("ip:192.0.2.7")); ds[0].Allowed || !ds[0].Blocked || ds[0].RetryAfter != time.Minute || !ds[1].Allowed || ds[1].Blocked {
			t.Fatalf("denied: %+v", ds)
		}
		if ds, err := l.Peek(t.Context(), "group", hit("ip:192.0.2.7")); err != nil || !ds[0].Blocked {
			t.Fatalf("a look at who is denied: %+v, %v", ds, err)
		}
		l.Configure(nil)
		if ds := take(t, l, hit("user:9")); len(ds) != 1 || ds[0].Policy.Limit != 100 || !ds[0].Allowed {
			t.Fatalf("after: %+v", ds)
		}
	})

	// A tier has its own limit, or that of the next lower one that has one.
	t.Run("a tier has its own limit, or that of the next lower one", func(t *testing.T) {
		l := limiterAt(t, servicestest.StartRedis(t).Addr)
		set := sampleSet(t, 1)
		l.Configure(set)
		own := models.Policy{Name: "api", Limit: 100, Window: time.Minute}
		for tier, want := range map[string]int64{"": 2, "unheard-of": 2, "bronze": 2, "silver": 3, "gold": 4, "platinum": 4} {
			hit := models.Hit{Policy: models.Policy{Name: "api-burst", Limit: 100, Window: time.Minute}, Key: "user:" + tier, Tier: tier}
			if ds := peek(t, l, hit); ds[0].Policy.Limit != want || ds[0].Policy.Block != 1 {
				t.Errorf("tier %q: %+v, want limit %d", tier, ds, want)
			}
			ds := take(t, l, models.Hit{Policy: own, Key: "user:" + tier, Tier: tier})
			if ds[0].Policy.Limit != 3 || ds[1].Policy.Limit != want || ds[1].Remaining != want-1 {
				t.Errorf("tier %q: %+v, want limits 3 and %d", tier, ds, want)
			}
		}
		other := models.Hit{Policy: models.Policy{Name: "other", Limit: 5, Window: time.Minute}, Key: "k", Tier: "gold"}
		if ds := peek(t, l, other); ds[0].Policy != other.Policy {
			t.Errorf("a policy that the file does not have: %+v", ds)
		}
	})

	t.Run("hits are counted where Placement says", func(t *testing.T) {
		t.Parallel()
		server := servicestest.StartRedis(t)
		l := limiterAt(t, server.Addr)
		l.Configure(sampleSet(t, 0))
		api, other := models.Policy{Name: "api", Limit: 9, Window: time.Minute}, models.Policy{Name: "other", Limit: 9, Window: time.Minute}
		counted := 0
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
			policies, tag, err := l.Placement("group", row.hits...)
			if err != nil || strings.Join(policies, " ") != row.policies || tag != row.tag {
				t.Errorf("%q by %q, %v, want %q by %q", policies, tag, err, row.policies, row.tag)
			}
			before := strings.Fields(server.Do("KEYS", "*rate:*"))
			if len(before) != counted {
				t.Errorf("placement left some of %q", before)
			}
			take(t, l, row.hits...)
			keys := slices.DeleteFunc(strings.Fields(server.Do("KEYS", "*rate:*")), func(key string) bool { return slices.Contains(before, key) })
			for _, key := range keys {
				if !strings.HasPrefix(key, "test:{"+row.tag+"}") {
					t.Errorf("%q is counted at %s", row.policies, key)
				}
			}
			if len(keys) != len(policies) {
				t.Errorf("%q have the keys %q", policies, keys)
			}
			counted += len(keys)
		}
	})
}
