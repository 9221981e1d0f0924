package redis

import (
	"fmt"
	"time"
)

// NodeState says how a node of Redis stands, and why it is away.
type NodeState string

// The states of a node. It is used in the first three, unless it was so slow for so
// long that it was given up; in the others it is away.
const (
	NodeOK         NodeState = "ok"
	NodeSlow       NodeState = "slow"       // round trips come near the Timeout, or take longer
	NodeMute       NodeState = "mute"       // it serves, but does not let us PUBLISH
	NodeStarting   NodeState = "starting"   // not asked yet
	NodeGone       NodeState = "gone"       // refused, closed, not found
	NodeTimeout    NodeState = "timeout"    // connected or not, it does not answer
	NodeTLS        NodeState = "tls"        // the two sides do not agree on TLS
	NodePassword   NodeState = "password"   // a wrong one, or none
	NodePermission NodeState = "permission" // the user may not run what is needed
	NodeIncapable  NodeState = "incapable"  // it lacks a command or a module
	NodeNoMaster   NodeState = "no-master"  // the Sentinel knows none of that name
	NodeNotNow     NodeState = "not-now"    // it says so itself: loading, full, read-only
	NodeUnassigned NodeState = "unassigned" // slots of the Cluster that no master has
)

const (
	suspectFailures = 3               // in a row, of calls and probes
	newFailures     = 5               // of a master that has just got slots: rueidis finds it within a second
	slowStreak      = 8               // so many slow probes in a row make a node slow, or too slow
	easeStreak      = 20              // so many quick ones make up for it
	causeStreak     = 4               // probes, until another cause of being away is told
	settleTime      = 5 * time.Second // at least, between two changes that are about slowness
)

// patience is how long a probe waits for an answer before it has failed: a machine that
// is busy for a moment is not gone. Calls do not wait for it.
func patience(timeout time.Duration) time.Duration { return max(4*timeout, timeout+time.Second) }

// cause is why a node is away, in words for whoever may see /readyz; detail is for
// the log.
type cause struct {
	state  NodeState
	reason string
	detail error
}

// lasting causes are not a matter of a moment: the answer was definite.
func (c cause) lasting() bool {
	return c.state == NodePermission || c.state == NodeIncapable || c.state == NodePassword || c.state == NodeTLS || c.state == NodeNoMaster
}

// health is what an instance knows of one node, from the calls and the probes. It
// tells slow from gone:
//
//	a call fails      -> the node is probed at once, and calls go on
//	3 failures in a row, and an error reply or a probe that is late:
//	                     the node is shut: no call is sent
//	the probe fails   -> the node is away
//	a probe answers in time -> OnRecover's hooks run, then calls are sent again
//
// A node that was shut, but not away, is used again with the first answer in time, and
// nothing is told of it. Probes that answer, but 8 times in a row later than the
// Timeout, make a node away as too slow: then 20 in a row must be in time before it is
// used again. Changes of that kind are 5 s apart.
//
// health is pure: its callers say what time it is, and hold the node's mutex.
type health struct {
	timeout time.Duration
	up      bool // as it is told
	shut    bool // calls are not sent
	tooSlow bool // away for that: it has to be in time for a while
	why     cause
	since   time.Time // of up, tooSlow and why.state

	failures int  // in a row
	doubted  bool // by more than calls that were not answered in time

	late, inTime    int           // probes in a row that took more, or not more, than the Timeout
	strained, easy  int           // the same for 7 tenths of it
	took            time.Duration // of the last probe that was answered
	slownessChanged time.Time
	other           cause // of being away, that the last probes told
	others          int
}

// failed notes a call that failed, for want of an answer in time or not.
func (h *health) failed(timeout bool) {
	h.failures++
	h.doubted = h.doubted || !timeout
	h.shut = h.shut || (h.doubted && h.failures >= suspectFailures)
}

// succeeded notes a call that Redis answered.
func (h *health) succeeded() { h.failures = 0 }

// waited notes that a probe under way is late, and later again.
func (h *health) waited() {
	h.doubted = true
	h.failed(true)
}

// answered notes a probe that was answered after took. If the node returns, the caller
// calls returned once the hooks have run. changed says that there is something to tell.
// A lack is what the node cannot do although it can be used.
func (h *health) answered(now time.Time, took time.Duration, lack cause) (returns, changed bool) {
	h.failures, h.doubted, h.others, h.took = 0, false, 0, took
	h.late, h.inTime = streak(h.late, h.inTime, took > h.timeout)
	h.strained, h.easy = streak(h.strained, h.easy, took > h.timeout*7/10)
	settled := now.Sub(h.slownessChanged) >= settleTime
	switch {
	case h.late >= slowStreak && settled && !h.tooSlow:
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
	return h.shut && h.late == 0, changed
}

// returned lets calls be sent. changed says that there is something to tell.
func (h *health) returned(now time.Time, lack cause) (changed bool) {
	h.shut, h.failures, h.doubted = false, 0, false
	if h.up {
		return false
	}
	if h.tooSlow {
		h.slownessChanged = now
	}
	h.up, h.tooSlow = true, false
	h.late, h.strained, h.easy = 0, 0, 0
	h.become(now, lacking(lack))
	return true
}

// unanswered notes a probe that failed. changed says that there is something to tell.
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

// reason says why the node is in its state.
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

// lacking is how a node stands that serves.
func lacking(lack cause) cause {
	if lack.state == "" {
		return cause{state: NodeOK}
	}
	return lack
}

// streak counts how often in a row something was so, and was not.
func streak(so, not int, is bool) (int, int) {
	if is {
		return so + 1, 0
	}
	return 0, not + 1
}
