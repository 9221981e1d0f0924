package redis

import (
	"fmt"
	"time"
)

// NodeState says how a node of Redis stands, and why it is away.
type NodeState string

// The states of a node. In the first three it is used, unless it has been so slow for so long
// that it counts as away; in the others it is away.
const (
	NodeOK         NodeState = "ok"
	NodeSlow       NodeState = "slow"       // round trips take nearly a Timeout, or longer
	NodeMute       NodeState = "mute"       // it serves, but its user may not PUBLISH
	NodeStarting   NodeState = "starting"   // not probed yet
	NodeGone       NodeState = "gone"       // refused, closed, not found
	NodeTimeout    NodeState = "timeout"    // it does not answer, on a connection or to a dial
	NodeTLS        NodeState = "tls"        // the handshake fails, or only one side wants TLS
	NodePassword   NodeState = "password"   // a wrong password or user name, or none
	NodePermission NodeState = "permission" // the user may not run a command, or not on these keys
	NodeIncapable  NodeState = "incapable"  // it lacks a command or a module
	NodeNoMaster   NodeState = "no-master"  // the Sentinel knows no master of that name
	NodeNotNow     NodeState = "not-now"    // its replies say why: loading, full, read-only
	NodeUnassigned NodeState = "unassigned" // the slots of the Cluster that no master has
)

const (
	suspectFailures = 3               // in a row, of calls and probes, until no call is sent
	newFailures     = 5               // of a new master: rueidis finds it within a second
	slowStreak      = 8               // slow probes in a row make a node slow, or too slow
	easeStreak      = 20              // quick probes in a row make up for them
	causeStreak     = 4               // probes in a row with another cause, until that is logged
	settleTime      = 5 * time.Second // least time between two changes that are about slowness
)

// patience is how long a probe waits for an answer. It is longer than a call waits, because a
// machine that is busy for a moment is not gone.
func patience(timeout time.Duration) time.Duration { return max(4*timeout, timeout+time.Second) }

// cause is why a node is away, or what it lacks.
type cause struct {
	state  NodeState
	reason string // a sentence without addresses, for /readyz
	detail error  // for the log
}

// lasting reports whether the cause stays until an operator changes something.
func (c cause) lasting() bool {
	return c.state == NodePermission || c.state == NodeIncapable || c.state == NodePassword || c.state == NodeTLS || c.state == NodeNoMaster
}

// health is what an instance knows of one node, from calls and probes; doc.go has its diagram.
//
// The methods are pure: their callers pass the time, and hold the node's mutex.
type health struct {
	timeout time.Duration
	up      bool // the node is not away; each change is logged
	shut    bool // no call is sent
	tooSlow bool // it is away because of that, until easeStreak probes were in time
	why     cause
	since   time.Time // when up, tooSlow or why.state changed last

	failures int  // in a row
	doubted  bool // at least one of them was an error or a late probe, not a call that was late

	slower, inTime  int           // probes in a row that took more, or not more, than the Timeout
	strained, easy  int           // the same for seven tenths of it
	took            time.Duration // of the last probe that was answered
	slownessChanged time.Time
	other           cause // of the last probes of a node that is away, if it is not why
	others          int   // probes in a row with that cause
}

// failed records a call that failed, by a timeout or by an error.
func (h *health) failed(timeout bool) {
	h.failures++
	h.doubted = h.doubted || !timeout
	h.shut = h.shut || (h.doubted && h.failures >= suspectFailures)
}

// succeeded records a call that Redis answered.
func (h *health) succeeded() { h.failures = 0 }

// probeLate records that a probe under way is late; a probe may be late several times.
func (h *health) probeLate() {
	h.doubted = true
	h.failed(true)
}

// answered records a probe that was answered after took. lack is what the node cannot do,
// although it serves. If the node returns, the caller calls returned once the hooks have run.
// changed says that there is a line to log.
func (h *health) answered(now time.Time, took time.Duration, lack cause) (returns, changed bool) {
	h.failures, h.doubted, h.others, h.took = 0, false, 0, took
	h.slower, h.inTime = streak(h.slower, h.inTime, took > h.timeout)
	h.strained, h.easy = streak(h.strained, h.easy, took > h.timeout*7/10)
	settled := now.Sub(h.slownessChanged) >= settleTime
	switch {
	case h.slower >= slowStreak && settled && !h.tooSlow:
		h.up, h.shut, h.tooSlow, h.slownessChanged = false, true, true, now
		h.become(now, cause{state: NodeSlow})
		return false, true
	case h.tooSlow:
		return h.inTime >= easeStreak && settled, false
	case !h.up:
		return h.inTime > 0, false
	case h.why.state == NodeSlow && (h.easy < easeStreak || !settled):
	case h.why.state == NodeSlow:
		h.slownessChanged = now
		h.become(now, lacking(lack))
		changed = true
	case h.strained >= slowStreak && settled:
		h.slownessChanged = now
		h.become(now, cause{state: NodeSlow})
		changed = true
	case lacking(lack).state != h.why.state:
		h.become(now, lacking(lack))
		changed = true
	}
	return h.shut && h.slower == 0, changed
}

// returned lets calls be sent. changed says that there is a line to log.
func (h *health) returned(now time.Time, lack cause) (changed bool) {
	h.shut, h.failures, h.doubted = false, 0, false
	if h.up {
		return false
	}
	if h.tooSlow {
		h.slownessChanged = now
	}
	h.up, h.tooSlow = true, false
	h.slower, h.strained, h.easy = 0, 0, 0
	h.become(now, lacking(lack))
	return true
}

// unanswered records a probe that failed. changed says that there is a line to log.
func (h *health) unanswered(now time.Time, why cause) (changed bool) {
	h.failures++
	h.inTime, h.easy = 0, 0
	switch {
	case (h.up || h.why.state == NodeStarting) && (h.failures >= suspectFailures || why.lasting()):
		h.up, h.shut, h.tooSlow = false, true, false
		h.become(now, why)
		return true
	case h.up, h.why.state == NodeStarting:
		return false
	case why.state == h.why.state:
		h.why, h.others = why, 0
		return false
	case why.state != h.other.state:
		h.others = 0
	}
	h.other = why
	if h.others++; h.others < causeStreak {
		return false
	}
	h.tooSlow = false
	h.become(now, why)
	return true
}

// reason explains the state; it is empty for NodeOK.
func (h *health) reason() string {
	switch took := h.took.Round(time.Millisecond); {
	case h.why.state != NodeSlow:
		return h.why.reason
	case h.up:
		return fmt.Sprintf("round trips take %v and come near REDIS_TIMEOUT, which is %v", took, h.timeout)
	default:
		return fmt.Sprintf("it answers after %v, later than REDIS_TIMEOUT, which is %v", took, h.timeout)
	}
}

func (h *health) become(now time.Time, why cause) { h.why, h.since, h.others = why, now, 0 }

// lacking is the cause for a node that serves.
func lacking(lack cause) cause {
	if lack.state == "" {
		return cause{state: NodeOK}
	}
	return lack
}

// streak adds to the one of two counts that is, and begins the other one anew.
func streak(so, not int, is bool) (int, int) {
	if is {
		return so + 1, 0
	}
	return 0, not + 1
}
