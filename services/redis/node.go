package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// node is a server that calls go to: the one there is, the master that the
// Sentinel names, or a master of the Cluster.
type node struct {
	shut    atomic.Bool   // as in health
	failing atomic.Bool   // a failure was counted since the last success
	wake    chan struct{} // asks for a probe now
	suspect atomic.Bool   // a call has failed since the last whole probe
	key     string        // that lives here, for the probe
	stop    func()        // ends the probes

	mu     sync.Mutex
	name   string // as it is told
	quiet  bool   // nothing was told yet: that it serves is no news
	health health
	lack   cause     // of what it cannot do although it serves, as the last whole probe found
	looked time.Time // for an eviction policy
	evicts string    // the policy that was told
}

func newNode(name, key string, timeout time.Duration, quiet bool) *node {
	n := &node{name: name, key: key, quiet: quiet, wake: make(chan struct{}, 1)}
	failures := suspectFailures - newFailures
	if quiet { // at the start one is enough to tell
		failures = suspectFailures - 1
	}
	n.health = health{timeout: timeout, shut: true, failures: failures, why: cause{state: NodeStarting, reason: "it was not asked yet"}, since: time.Now()}
	n.shut.Store(true)
	return n
}

// note lets what happened change the node's health.
func (n *node) note(happened func(h *health)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	happened(&n.health)
	n.shut.Store(n.health.shut)
}

// succeeded is told of each call that Redis answered.
func (n *node) succeeded() {
	if n.failing.Load() && n.failing.Swap(false) {
		n.note((*health).succeeded)
	}
}

// failed is told of each call that says that the node does not serve.
func (n *node) failed(timeout bool) {
	n.failing.Store(true)
	n.suspect.Store(true)
	n.note(func(h *health) { h.failed(timeout) })
	n.probeNow()
}

func (n *node) probeNow() {
	select {
	case n.wake <- struct{}{}:
	default: // it is asked for already
	}
}

// rename tells of the node by the first of names from now on.
func (n *node) rename(names []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(names) > 0 {
		n.name = names[0]
	}
}

// isQuiet reports whether nothing was told of the node yet.
func (n *node) isQuiet() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.quiet
}

// used reports whether the node is used, whatever the question of the moment.
func (n *node) used() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.health.up
}

// down reports whether the node is not used, be it that the question is still open: where
// the answer is no, calls are sent. One that is known as slow is shut for a moment now and
// then, which is not worth telling.
func (n *node) down() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.health.up || (n.health.shut && n.health.why.state != NodeSlow)
}

// nodes are the nodes and what lives on them. It is never changed.
type nodes struct {
	all    []*node
	ranges []slotRange // in order; nil if the one node has everything
	slotOf func(key string) uint16
}

// slotRange is slots of a Cluster that one master has.
type slotRange struct {
	from, to uint16
	master   string
	node     *node
}

func oneNode(n *node) *nodes { return &nodes{all: []*node{n}} }

// of is the node on which a key lives. For "" it is one that serves, if any does.
func (s *nodes) of(key string) *node {
	if s.ranges == nil {
		return s.all[0]
	}
	if key == "" {
		for _, n := range s.all {
			if !n.shut.Load() {
				return n
			}
		}
		return s.all[0]
	}
	slot := s.slotOf(key)
	i, _ := slices.BinarySearchFunc(s.ranges, slot, func(r slotRange, slot uint16) int { return int(r.to) - int(slot) })
	return s.ranges[i].node
}

// slotsIn answers keys' slots as the client of a Cluster does. A hash tag stands for
// the keys that have it.
func slotsIn(client rueidis.Client) func(key string) uint16 {
	return func(key string) uint16 {
		command := client.B().Get().Key(key).Build()
		return command.Slot()
	}
}

// Node tells how one node of Redis stands.
type Node struct {
	Name   string
	Up     bool // it is used
	State  NodeState
	Reason string // of another state than NodeOK, in a sentence without addresses
	Since  time.Time
}

// Nodes tells how the nodes stand that calls go to: one, or the masters of a Cluster.
func (r *Client) Nodes() []Node {
	if r.opt.Disabled {
		return nil
	}
	set := r.nodes.Load()
	nodes := make([]Node, len(set.all))
	for i, n := range set.all {
		n.mu.Lock()
		h := &n.health
		nodes[i] = Node{Name: n.name, Up: h.up, State: h.why.state, Reason: h.reason(), Since: h.since}
		n.mu.Unlock()
	}
	return nodes
}

// Reason says why not all of Redis is used as it should be, without addresses. It is
// empty if it is, or was not meant to be.
func (r *Client) Reason() string {
	var reasons []string
	of := map[string]int{}
	nodes := r.Nodes()
	for _, n := range nodes {
		if n.State == NodeOK {
			continue
		}
		if of[n.Reason]++; of[n.Reason] == 1 {
			reasons = append(reasons, n.Reason)
		}
	}
	for i, reason := range reasons {
		if len(nodes) > 1 {
			reasons[i] = fmt.Sprintf("%d of %d nodes: %s", of[reason], len(nodes), reason)
		}
	}
	if deaf := r.deaf.Load(); deaf != nil {
		reasons = append(reasons, *deaf)
	}
	return strings.Join(reasons, "; ")
}

// Available reports whether calls are sent to Redis now, whatever their keys: in a
// Cluster not while one master is away.
func (r *Client) Available() bool {
	if r.opt.Disabled {
		return false
	}
	for _, n := range r.nodes.Load().all {
		if n.shut.Load() {
			return false
		}
	}
	return true
}

// AvailableFor reports whether calls are sent to the node on which key lives; a hash
// tag stands for all keys that have it.
func (r *Client) AvailableFor(key string) bool {
	return !r.opt.Disabled && !r.nodes.Load().of(key).shut.Load()
}

// Reaches reports whether a call with ctx for a key, or a hash tag, is sent now.
func (r *Client) Reaches(ctx context.Context, key string) bool {
	n := r.nodes.Load().of(key)
	return !r.opt.Disabled && (!n.shut.Load() || recovering(ctx) == n)
}

// AnyAvailable reports whether there is a node to which calls are sent now.
func (r *Client) AnyAvailable() bool {
	return r.AvailableFor("")
}

// Degraded reports whether something is done without Redis that is meant to be done with
// it: a node is away, or cannot do all that is needed, or Redis is disabled.
func (r *Client) Degraded() bool {
	for _, n := range r.Nodes() {
		if n.State == NodeMute {
			return true
		}
	}
	return r.opt.Disabled || r.anyDown() || r.deaf.Load() != nil
}

// Status is "ok", "embedded", "down" or "disabled". It is "down" also if only a part
// of a Cluster is.
func (r *Client) Status() string {
	switch {
	case r.opt.Disabled:
		return "disabled"
	case r.anyDown():
		return "down"
	case r.opt.Embedded:
		return "embedded"
	}
	return "ok"
}

func (r *Client) anyDown() bool {
	return slices.ContainsFunc(r.nodes.Load().all, (*node).down)
}
