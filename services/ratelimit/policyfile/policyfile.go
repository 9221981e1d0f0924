// Package policyfile reads the policies of rate limits from YAML. It is apart from ratelimit,
// so that an application without such a file links no YAML.
package policyfile

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/goccy/go-yaml"

	"gatehouse/services/ratelimit"
)

type file struct {
	Policies []ratelimit.PolicyEntry `yaml:"policies"`
}

// Parse reads a policy file:
//
//	policies:
//	  - name: api             # in place of the program's policy of that name
//	    limit: 300
//	    window: 1m
//	    tiers: {editor: 600}  # limits of those tiers, see models.Hit
//	    allow: [10.0.0.0/8]   # never limited: keys such as user:42, or that end in such an address
//	    deny: [192.0.2.7]     # always refused: the decision is Blocked
//	  - name: api-burst       # one more, decided together with api, for the same key
//	    with: api
//	    limit: 20
//	    window: 1s
//
// The further fields are algorithm, on_redis_down, shadow and lease; ratelimit.PolicyEntry
// describes all of them, and known. A file without a list of policies is wrong; an empty one is
// policies: []. So is a file that is larger than MaxSize, or has more than 64 policies. Errors call
// the file name: each is one line that begins with it and the number of the wrong line.
func Parse(name string, source []byte, known map[string][]string) (*ratelimit.PolicySet, error) {
	tree, err := parseTree(name, source)
	if err != nil {
		return nil, err
	}
	var f file
	source = bytes.TrimPrefix(source, []byte("\ufeff"))
	if err := yaml.UnmarshalWithOptions(source, &f, yaml.Strict()); err != nil {
		return nil, atLine(name, err)
	}
	if f.Policies == nil { // perhaps it is just being written
		return nil, fmt.Errorf("%s:%d: policies: must be there; for none say policies: []", name, lineAt(tree, "$.policies"))
	}
	if len(f.Policies) > maxPolicies {
		return nil, fmt.Errorf("%s:%d: more than %d policies are not allowed", name, lineOf(tree, maxPolicies, "name"), maxPolicies)
	}
	set, err := ratelimit.NewPolicySet(f.Policies, known)
	if wrong := (*ratelimit.EntryError)(nil); errors.As(err, &wrong) {
		return nil, fmt.Errorf("%s:%d: %w", name, lineOf(tree, wrong.Index, wrong.Field), err)
	}
	return set, err
}
