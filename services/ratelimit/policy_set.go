package ratelimit

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"gatehouse/models"
)

// PolicySet replaces and completes the policies of the program, so that they can be changed
// without it. Nil is an empty set. A set does not change once made, and can be used by several
// limiters.
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

// PolicyEntry is one policy of a set, as a file gives it. What it leaves out has the default of
// models.Policy, whatever the program's policy of that name says.
type PolicyEntry struct {
	Name        string             `yaml:"name"`   // one that is known, or any other one With such a policy
	Limit       int64              `yaml:"limit"`  // units per Window, 1 to 1,000,000
	Window      string             `yaml:"window"` // a duration such as 1m: 1s to 24h in whole seconds
	Algorithm   models.Algorithm   `yaml:"algorithm"`
	OnRedisDown models.OnRedisDown `yaml:"on_redis_down"`
	Shadow      bool               `yaml:"shadow"` // decide and count, but never refuse
	Block       *Lease             `yaml:"lease"`  // the most units of one block, 0 to Limit; nil is models.BlockAuto
	Tiers       map[string]int64   `yaml:"tiers"`  // by tier (see models.Hit) the limit in place of Limit
	With        string             `yaml:"with"`   // the known policy that this one is decided together with, for the same key
	Allow       []string           `yaml:"allow"`  // never limited: keys such as user:42, addresses or networks of keys that end in one
	Deny        []string           `yaml:"deny"`   // always refused, in the same form: the decision is Blocked
}

// Lease is a Block as a file gives it: a number, or auto.
type Lease int64

// UnmarshalYAML reads the text of a value.
func (l *Lease) UnmarshalYAML(text []byte) error {
	value := string(bytes.TrimSpace(text))
	if value == "auto" {
		*l = models.BlockAuto
		return nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || n < 0 {
		return errors.New("lease must be auto, or a whole number from 0 to the limit")
	}
	*l = Lease(n) // one that is too large is above any limit
	return nil
}

// EntryError says which entry of a set is wrong. Its text is that of Err.
type EntryError struct {
	Index int    // of the entry
	Field string // as in the file, such as limit or tiers.editor
	Err   error
}

func (e *EntryError) Error() string { return e.Err.Error() }

func (e *EntryError) Unwrap() error { return e.Err }

// NewPolicySet makes a set of its entries; policyfile.Parse reads them from YAML. The known
// policies are those that the program asks for, each with its tiers, lowest first. Any other policy
// needs a With, and has the tiers of that one. A tier that an entry does not list has the limit of
// the next lower one that it lists, else the entry's. A Block above a tier's limit is that limit
// there. The error is an EntryError.
func NewPolicySet(entries []PolicyEntry, known map[string][]string) (*PolicySet, error) {
	set := &PolicySet{byName: map[string]*configuredPolicy{}, with: map[string][]models.Policy{}}
	for i := range entries {
		if field, err := set.add(&entries[i], known); err != nil {
			return nil, &EntryError{Index: i, Field: field, Err: err}
		}
	}
	return set, nil
}

// add takes in an entry. It returns the field that is wrong.
func (s *PolicySet) add(p *PolicyEntry, known map[string][]string) (field string, err error) {
	c, field, err := p.configured()
	if err != nil {
		return field, err
	}
	names := slices.Sorted(maps.Keys(known))
	switch {
	case p.Name == models.SignInAuditPolicy:
		return "name", fmt.Errorf("policy %q cannot be in a file: it bounds the audit, and limits no request", p.Name)
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

func (p *PolicyEntry) block() int64 {
	if p.Block == nil {
		return models.BlockAuto
	}
	return int64(*p.Block)
}

// configured is the policy by itself, without its tiers. It returns the field that is wrong.
func (p *PolicyEntry) configured() (c *configuredPolicy, field string, err error) {
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
		{"lease", func() { c.Block = p.block() }},
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

// addTiers gives each of the known tiers, lowest first, its limit. It returns the tier that is
// wrong.
func (c *configuredPolicy) addTiers(limits map[string]int64, known []string) (string, error) {
	for _, tier := range slices.Sorted(maps.Keys(limits)) {
		p := c.Policy
		p.Limit = limits[tier]
		p.Block = min(p.Block, p.Limit)
		switch err := p.Validate(); {
		case len(known) == 0:
			return tier, fmt.Errorf("policy %q: tier %q is not known: no client that it limits has one", c.Name, tier)
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
			p.Block = min(c.Block, limit)
		}
		c.tiers[tier] = p
	}
	return "", nil
}

// Configure puts a policy set to use from the next decision on; nil ends that. What was counted
// stays counted. It is safe to call at any time.
func (l *Limiter) Configure(set *PolicySet) { l.policies.Store(set) }

// Placement returns where hits of one group are counted. The policies are by name, with those that
// the PolicySet adds. The tag is the hash tag that puts their keys in one Cluster slot: the
// hits' common key, or else the group. It does not ask Redis. The errors are those of Take.
func (l *Limiter) Placement(group string, hits ...models.Hit) (policies []string, tag string, err error) {
	requests, err := l.prepare(hits, nil)
	if err != nil || len(requests) == 0 {
		return nil, "", err
	}
	for i := range requests {
		policies = append(policies, requests[i].name.policy)
	}
	return policies, tagOf(group, requests), nil
}

func (s *PolicySet) find(name string) *configuredPolicy {
	if s == nil {
		return nil
	}
	return s.byName[name]
}

// companions are the hits of the policies that go along with a hit's, for the same key and cost.
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
