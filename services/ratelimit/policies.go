package ratelimit

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"gatehouse/models"
)

// PolicySet replaces and completes the policies of the program, so that they can
// be changed without it. Nil is an empty set. It is not changed once made.
type PolicySet struct {
	byName map[string]*configuredPolicy
	with   map[string][]models.Policy // decided together with the policy of that name
}

type configuredPolicy struct {
	models.Policy
	tiers           map[string]models.Policy // the same with the limit of a tier
	allowed, denied models.ClientList
}

// forTier is the policy for a hit's tier.
func (c *configuredPolicy) forTier(tier string) models.Policy {
	if p, ok := c.tiers[tier]; ok {
		return p
	}
	return c.Policy
}

// policyFile is a policy file as YAML.
type policyFile struct {
	Policies []filePolicy `yaml:"policies"`
}

type filePolicy struct {
	Name        string             `yaml:"name"`
	Limit       int64              `yaml:"limit"`
	Window      string             `yaml:"window"`
	Algorithm   models.Algorithm   `yaml:"algorithm"`
	OnRedisDown models.OnRedisDown `yaml:"on_redis_down"`
	Shadow      bool               `yaml:"shadow"`
	Lease       int64              `yaml:"lease"`
	Tiers       map[string]int64   `yaml:"tiers"`
	With        string             `yaml:"with"`
	Allow       []string           `yaml:"allow"`
	Deny        []string           `yaml:"deny"`
}

// ParsePolicies reads a policy file:
//
//	policies:
//	  - name: api             # in place of the program's policy of that name
//	    limit: 300
//	    window: 1m
//	    tiers: {editor: 600}  # limits of those tiers, see models.Hit
//	    allow: [10.0.0.0/8]   # never limited: keys such as user:42, or that end in such an address
//	    deny: [192.0.2.7]     # always refused: the decision is Barred
//	  - name: api-burst       # one more, decided together with api, for the same key
//	    with: api
//	    limit: 20
//	    window: 1s
//
// and further algorithm (sliding-log, gcra), on_redis_down (local, open, closed),
// shadow and lease, as in models.Policy. known are the policies that the program
// asks for, with the tiers it tells apart, lowest first: any other policy needs a
// with, and has the tiers of that one. A tier that a policy does not list has the
// limit of the next lower one that it lists, else the policy's. A file that names no
// list is wrong; an empty one is policies: []. So is one that is larger than MaxPolicyFile,
// or has more than 64 policies. An error is one line that begins with
// name and the number of the line that is wrong.
func ParsePolicies(name string, source []byte, known map[string][]string) (*PolicySet, error) {
	tree, err := parsePolicyTree(name, source)
	if err != nil {
		return nil, err
	}
	var file policyFile
	source = bytes.TrimPrefix(source, []byte("\ufeff"))
	if err := yaml.UnmarshalWithOptions(source, &file, yaml.Strict()); err != nil {
		return nil, atLine(name, err)
	}
	if file.Policies == nil { // perhaps it is just being written
		return nil, fmt.Errorf("%s:%d: policies: must be there; for none say policies: []", name, lineAt(tree, "$.policies"))
	}
	if len(file.Policies) > maxPolicies {
		return nil, fmt.Errorf("%s:%d: more than %d policies are not allowed", name, lineOf(tree, maxPolicies, "name"), maxPolicies)
	}
	set := &PolicySet{byName: map[string]*configuredPolicy{}, with: map[string][]models.Policy{}}
	for i := range file.Policies {
		if field, err := set.add(&file.Policies[i], known); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, lineOf(tree, i, field), err)
		}
	}
	return set, nil
}

// add takes in a policy of the file. It returns the field that is wrong.
func (s *PolicySet) add(p *filePolicy, known map[string][]string) (field string, err error) {
	c, field, err := p.configured()
	if err != nil {
		return field, err
	}
	names := slices.Sorted(maps.Keys(known))
	switch {
	case p.Name == models.SignInAuditPolicy:
		return "name", fmt.Errorf("policy %q cannot be in a file: it bounds what the audit takes, and limits nobody", p.Name)
	case s.byName[p.Name] != nil:
		return "name", fmt.Errorf("policy %q is given twice", p.Name)
	case p.With == "" && !slices.Contains(names, p.Name):
		return "name", fmt.Errorf("policy %q is not known: it must be one of %s, or say with which of them", p.Name, strings.Join(names, ", "))
	case p.With != "" && (!slices.Contains(names, p.With) || slices.Contains(names, p.Name)):
		return "with", fmt.Errorf("policy %q cannot go with %q: must be a policy of its own with one of %s", p.Name, p.With, strings.Join(names, ", "))
	case p.With != "":
		s.with[p.With] = append(s.with[p.With], c.Policy)
	}
	if tier, err := c.addTiers(p.Tiers, known[cmp.Or(p.With, p.Name)]); err != nil {
		return "tiers." + tier, err
	}
	s.byName[p.Name] = c
	return "", nil
}

// configured is the policy by itself, without its tiers. It returns the field that
// is wrong.
func (p *filePolicy) configured() (c *configuredPolicy, field string, err error) {
	window, err := time.ParseDuration(p.Window)
	if err != nil && p.Window != "" {
		return nil, "window", fmt.Errorf("policy %q: window %q is not allowed: must be a duration such as 1m", p.Name, p.Window)
	}
	// Field by field, so that the first that does not fit is the one named.
	c = &configuredPolicy{Policy: models.Policy{Name: "name", Limit: 1, Window: time.Second}}
	for _, set := range []struct {
		field string
		to    func()
	}{
		{"name", func() { c.Name = p.Name }},
		{"limit", func() { c.Limit = p.Limit }},
		{"window", func() { c.Window = window }},
		{"algorithm", func() { c.Algorithm = p.Algorithm }},
		{"on_redis_down", func() { c.OnRedisDown = p.OnRedisDown }},
		{"lease", func() { c.Lease = p.Lease }},
	} {
		set.to()
		if err := c.Validate(); err != nil {
			return nil, set.field, err
		}
	}
	c.Shadow = p.Shadow
	if c.allowed, err = models.NewClientList(p.Allow...); err != nil {
		return nil, "allow", fmt.Errorf("policy %q: allow: %w", p.Name, err)
	}
	if c.denied, err = models.NewClientList(p.Deny...); err != nil {
		return nil, "deny", fmt.Errorf("policy %q: deny: %w", p.Name, err)
	}
	return c, "", nil
}

// addTiers gives each of the known tiers, lowest first, its limit. It returns the
// tier that is wrong.
func (c *configuredPolicy) addTiers(limits map[string]int64, known []string) (string, error) {
	for _, tier := range slices.Sorted(maps.Keys(limits)) {
		p := c.Policy
		p.Limit = limits[tier]
		p.Lease = min(p.Lease, p.Limit)
		switch err := p.Validate(); {
		case len(known) == 0:
			return tier, fmt.Errorf("policy %q: tier %q is not known: nobody whom it limits has one", c.Name, tier)
		case !slices.Contains(known, tier):
			return tier, fmt.Errorf("policy %q: tier %q is not known: must be one of %s", c.Name, tier, strings.Join(known, ", "))
		case err != nil:
			return tier, fmt.Errorf("tier %q: %w", tier, err)
		}
	}
	c.tiers = map[string]models.Policy{}
	p := c.Policy
	for _, tier := range known {
		if limit, ok := limits[tier]; ok {
			p.Limit = limit
			p.Lease = min(c.Lease, limit)
		}
		c.tiers[tier] = p
	}
	return "", nil
}

// Configure puts a policy set to use from the next decision on; nil ends that.
// What was counted stays counted.
func (l *Limiter) Configure(set *PolicySet) { l.policies.Store(set) }

// Effective is the hit's policy as the set has it: what Take decides by.
func (l *Limiter) Effective(hit models.Hit) models.Policy {
	if c := l.policies.Load().find(hit.Policy.Name); c != nil {
		return c.forTier(hit.Tier)
	}
	return hit.Policy
}

// Placement tells where hits that are asked together are counted: the names of
// their policies, with those that the PolicySet adds, and the hash tag by which
// their keys are in one Cluster slot: the hits' common key or else the group. The
// errors are those of Take. It asks nobody.
func (l *Limiter) Placement(group string, hits ...models.Hit) (policies []string, tag string, err error) {
	asks, err := l.prepare(hits, nil)
	if err != nil || len(asks) == 0 {
		return nil, "", err
	}
	for i := range asks {
		policies = append(policies, asks[i].name.policy)
	}
	return policies, tagOf(group, asks), nil
}

func (s *PolicySet) find(name string) *configuredPolicy {
	if s == nil {
		return nil
	}
	return s.byName[name]
}

// companions are the hits of the policies that go along with a hit's, for the same
// key and cost.
func (s *PolicySet) companions(hit models.Hit) []models.Hit {
	if s == nil {
		return nil
	}
	var along []models.Hit
	for _, p := range s.with[hit.Policy.Name] {
		along = append(along, models.Hit{Policy: p, Key: hit.Key, Cost: hit.Cost, Tier: hit.Tier})
	}
	return along
}
