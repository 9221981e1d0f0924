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

// node is a server that calls go to: the one that Options.Client names, the master that the
// Sentinel names, or a master of the Cluster.
type node struct {
	shut    atomic.Bool   // a copy of health.shut
	failing atomic.Bool   // a failure was counted since the last success
	wake    chan struct{} // asks for a probe now
	suspect atomic.Bool   // a call has failed since the last full probe
	stop    func()        // ends the probes; nil while there are none

	mu           sync.Mutex
	key          string // of the probe; it lives on this node
	name         string // in the log and in metrics
	quiet        bool   // nothing was logged yet: that it serves is no news
	health       health
	lack         cause // the command that the last full probe missed, if the node serves without it
	policyReadAt time.Time
	policyLogged string // the eviction policy
}

func newNode(name, key string, timeout time.Duration, quiet bool) *node {
	n := &node{name: name, key: key, quiet: quiet, wake: make(chan struct{}, 1)}
	failures := suspectFailures - newFailures
	if quiet { // at the start, one failed probe is logged
		failures = suspectFailures - 1
	}
	n.health = health{timeout: timeout, shut: true, failures: failures, why: cause{state: NodeStarting, reason: "it was not asked yet"}, since: time.Now()}
	n.shut.Store(true)
	return n
}

// update changes the node's health.
func (n *node) update(change func(h *health)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(&n.health)
	n.shut.Store(n.health.shut)
}

// succeeded records a call that Redis answered.
func (n *node) succeeded() {
	if n.failing.Load() && n.failing.Swap(false) {
		n.update((*health).succeeded)
	}
}

// failed records a call that says that the node does not serve, by a timeout or by an error.
func (n *node) failed(timeout bool) {
	n.failing.Store(true)
	n.suspect.Store(true)
	n.update(func(h *health) { h.failed(timeout) })
	n.probeNow()
}

func (n *node) probeNow() {
	select {
	case n.wake <- struct{}{}:
	default: // it was asked for already
	}
}

// rename names the node by the first of names. No names change nothing.
func (n *node) rename(names []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(names) > 0 {
		n.name = names[0]
	}
}

// isQuiet reports whether nothing was logged about the node yet.
func (n *node) isQuiet() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.quiet
}

// isUp reports whether the node is not away. While it is shut it can be up.
func (n *node) isUp() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.health.up
}

// down reports whether no call is sent to the node, because it is away or shut. A node that is
// known as slow is shut for a moment now and then, which does not count.
func (n *node) down() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.health.up || (n.health.shut && n.health.why.state != NodeSlow)
}

// nodes are the nodes, and the slots that each of them has. A nodes is never changed.
type nodes struct {
	all    []*node
	ranges []slotRange // in order; nil if the one node has all keys
	slotOf func(key string) uint16
}

// slotRange is a range of slots of a Cluster, ends included, that one master has.
type slotRange struct {
	from, to uint16
	master   string
	node     *node
}

func oneNode(n *node) *nodes { return &nodes{all: []*node{n}} }

// of returns the node on which a key lives. For "" it is a node that serves, if there is one.
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

// slotsIn returns a function for the slots of keys in the Cluster of client. A hash tag stands
// for the keys that contain it.
func slotsIn(client rueidis.Client) func(key string) uint16 {
	return func(key string) uint16 {
		command := client.B().Get().Key(key).Build()
		return command.Slot()
	}
}

// Node is the state of one node of Redis.
type Node struct {
	Name   string // host:port, or several with commas between until one is chosen
	Up     bool   // whether it is used
	State  NodeState
	Reason string    // why State is not NodeOK, in a sentence without addresses; else empty
	Since  time.Time // when Up or State changed last
}

// Nodes returns the nodes that calls go to: one, or the masters of a Cluster. It is nil if
// Redis is disabled.
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

// Reason says why not all of Redis is used as it should be, without addresses. It is empty
// if all is well or Redis is disabled.
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
	if deaf := r.noSubscription.Load(); deaf != nil {
		reasons = append(reasons, *deaf)
	}
	return strings.Join(reasons, "; ")
}

// Available reports whether calls are sent to Redis now, whatever their keys. In a Cluster it
// is false while one master is away.
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

// AvailableFor reports whether calls are sent to the node on which key lives. A hash tag
// stands for all keys that contain it.
func (r *Client) AvailableFor(key string) bool {
	return !r.opt.Disabled && !r.nodes.Load().of(key).shut.Load()
}

// Reaches is AvailableFor for a call with ctx, which may be that of an OnRecover hook.
func (r *Client) Reaches(ctx context.Context, key string) bool {
	return r.sendsTo(ctx, r.nodes.Load().of(key))
}

func (r *Client) sendsTo(ctx context.Context, n *node) bool {
	return !r.opt.Disabled && (!n.shut.Load() || recovering(ctx) == n)
}

// AnyAvailable reports whether there is a node to which calls are sent now.
func (r *Client) AnyAvailable() bool {
	return r.AvailableFor("")
}

// Degraded reports whether something is done without Redis that should be done with it: a
// node is away or lacks a command, subscriptions are refused, or Redis is disabled.
func (r *Client) Degraded() bool {
	for _, n := range r.Nodes() {
		if n.State == NodeMute {
			return true
		}
	}
	return r.opt.Disabled || r.anyDown() || r.noSubscription.Load() != nil
}

// Status is "ok", "embedded", "down" or "disabled". It is "down" also while one master of a
// Cluster is away.
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
