package models

import (
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// MaxLimit is the highest limit of a policy.
	MaxLimit = 1_000_000
	// MaxSlidingLogLimit is the highest limit that a sliding log counts.
	MaxSlidingLogLimit = 1000
	// BlockAuto is the Block of a policy whose busy keys are served from blocks sized to how
	// often an instance is asked for them, and whose other keys are asked at Redis each time.
	BlockAuto = -1
)

// Algorithm names how a policy counts.
type Algorithm string

// The algorithms. The zero value is AlgorithmAuto.
const (
	AlgorithmAuto       Algorithm = ""            // sliding log up to a limit of 1,000, else GCRA
	AlgorithmSlidingLog Algorithm = "sliding-log" // never more than Limit in any Window; Limit at most 1,000
	AlgorithmGCRA       Algorithm = "gcra"        // constant memory for any limit
)

// OnRedisDown is what a rate limit or a lock does without Redis.
type OnRedisDown string

// The values of OnRedisDown. Locks take open and closed only. The zero value is the default of
// the service.
const (
	OnRedisDownLocal  OnRedisDown = "local"  // each instance decides by itself
	OnRedisDownOpen   OnRedisDown = "open"   // all pass, degraded
	OnRedisDownClosed OnRedisDown = "closed" // refuse with ErrUnavailable
)

// SignInAuditPolicy is the name of the policy that lets refused sign-ins into the audit. It
// limits no request, so a policy file must not name it.
const SignInAuditPolicy = "login-audit"

// Policy is a rate limit: at most Limit units in any Window for each key. Name, Limit and Window
// must be set.
type Policy struct {
	Name        string        // shown in headers and metrics
	Limit       int64         // units per window, 1 to 1,000,000
	Window      time.Duration // 1 s to 24 h in whole seconds
	Algorithm   Algorithm
	OnRedisDown OnRedisDown // zero is local
	Shadow      bool        // decide and count, but never refuse
	Block       int64       // most units that an instance takes from Redis in one block, or BlockAuto; 0 asks Redis for each hit
}

// Validate returns an error that names the first invalid field, nil if there is none.
func (p Policy) Validate() error {
	switch {
	case !IsName(p.Name, "._/-"):
		return fmt.Errorf("policy %q: the name must be 1 to 64 of A-Z a-z 0-9 . _ / -", p.Name)
	case p.Limit < 1 || p.Limit > MaxLimit:
		return fmt.Errorf("policy %q: limit %d is not allowed: must be 1 to 1,000,000", p.Name, p.Limit)
	case p.Window < time.Second || p.Window > 24*time.Hour || p.Window%time.Second != 0:
		return fmt.Errorf("policy %q: window %s is not allowed: must be 1s to 24h in whole seconds", p.Name, p.Window)
	case p.Algorithm == AlgorithmSlidingLog && p.Limit > MaxSlidingLogLimit:
		return fmt.Errorf("policy %q: limit %d is not allowed: a sliding log counts up to 1,000", p.Name, p.Limit)
	case p.Block < BlockAuto || p.Block > p.Limit:
		return fmt.Errorf("policy %q: block (lease) %d is not allowed: must be auto, or 0 to the limit", p.Name, p.Block)
	}
	switch p.Algorithm {
	case AlgorithmAuto, AlgorithmSlidingLog, AlgorithmGCRA:
	default:
		return fmt.Errorf("policy %q: algorithm %q is not allowed: must be sliding-log or gcra", p.Name, p.Algorithm)
	}
	switch p.OnRedisDown {
	case "", OnRedisDownLocal, OnRedisDownOpen, OnRedisDownClosed:
		return nil
	}
	return fmt.Errorf("policy %q: %q is not allowed when Redis is down: must be local, open or closed", p.Name, p.OnRedisDown)
}

// Hit asks a policy for Cost units of Key. Cost 0 counts as 1. A negative Cost takes nothing and
// always passes: its decision is the state of the key. Tier is the tier of the client, such as
// a role, for a policy set with limits by tier.
type Hit struct {
	Policy Policy
	Key    string
	Cost   int64
	Tier   string
}

// Decision is the answer of a limiter to one hit. Hits that are decided together count together:
// if one of them is not allowed, none is counted.
type Decision struct {
	Policy     Policy
	With       string        // the policy to which a policy set adds this one; empty for the policy of the hit
	Allowed    bool          // always true for a shadow policy, whose RetryAfter is above 0 if it would refuse
	Remaining  int64         // units that another hit could take now
	RetryAfter time.Duration // until this hit can pass; 0 if allowed
	ResetAfter time.Duration // until Remaining grows; 0 if it is full
	Blocked    bool          // the key is on the policy's deny list: waiting is useless
	Degraded   bool          // made without Redis
	Admission  Admission     // what was counted, for a refund; zero if nothing was
}

// Admission identifies what a decision counted, for a refund by the limiter that made it. The zero
// value is nothing.
type Admission struct {
	ID, Cost int64
	At       int64 // from when on it counts by Redis's clock in microseconds, or another origin of the admission
	LocalAt  int64 // the instance's clock in microseconds
	Tag, Key string
	// Refunded is whether the admission was refunded; all copies share it. It is nil if nothing
	// was counted, and for a sliding log, which finds out by the ID.
	Refunded *atomic.Bool
}
