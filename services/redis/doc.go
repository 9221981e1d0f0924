// Package redis is the client through which all of gatehouse reaches Redis. It knows which
// node serves, so that a Redis that hangs or is gone costs a request next to nothing.
//
// # Promise
//
// No call takes longer than Options.Timeout, and neither do all calls under one WithBudget
// together; a ctx that ends earlier ends its calls. A node that does not serve costs the first
// few calls one Timeout each, and later calls return ErrNotSent at once. Only probes in the
// background make a node used again, never a user's request, and what OnRecover sends reaches
// it before any other call does.
//
// # Health of a node
//
// A node is the one server, the master that the Sentinel names, or a master of the Cluster.
// Each has its own health (health.go):
//
//	    3 failures in a row, one of them an        3 failures in a row, the last a probe,
//	    error reply or a probe that is late        or a cause that lasts (password, ACL)
//	+------+ ----------------------> +------+ ----------------------> +------+
//	| used |                         | shut |                         | away | <- start
//	+------+ <---------------------- +------+                         +------+
//	    ^      a probe in time; hooks run; nothing is logged              |
//	    |                                                                 |
//	    +-----------------------------------------------------------------+
//	           a probe in time; hooks run; one line in the log
//
// Calls are sent to a node that is used, and to no other. Calls that only time out do not shut
// a node by themselves: the machine of this process may be busy. They ask for a probe, which
// waits for 4 Timeouts, or for Timeout + 1 s if that is longer. Each 1.5 Timeouts without an
// answer count as one failure. An instance shuts a node before it knows whether that is
// away, so a frozen server costs few requests their Timeout.
//
// Slow is not gone, so it has rules of its own beside the diagram (health.answered). A node
// whose last 8 probes each took 0.7 Timeouts or more is used, and logged as slow. One whose last
// 8 probes each took longer than a Timeout is away until 20 probes in a row are in time. Two
// changes of that kind are at least 5 s apart.
//
// # Trust
//
// All times are differences on this process's monotonic clock; no clock of Redis takes part. A
// node is probed every 250 ms, and 50 ms after a call that failed, so what is known of it is
// that old, plus a round trip. Calls are executed in the order in which they are sent, also
// those whose callers have left, because they share one connection to each node. That ends
// with the connection: LostConnections says how often it did. Messages to Subscribe are hints,
// which may be lost. What Tracking reads is right for 2 s (trackingTrust) after the last answered
// ping on its connection, unless a change was reported.
//
// # Failures
//
//	what happens                      calls                             Nodes, log, /readyz
//	--------------------------------  --------------------------------  -------------------
//	nothing listens, connection lost  3 fail at once, then ErrNotSent   gone
//	the server hangs                  first ones 1 Timeout, then at     timeout
//	                                  once ErrNotSent
//	it answers late, always           ErrNotSent                        slow, not up
//	round trips near the Timeout      are served                        slow, up
//	loading, full, read-only, BUSY    3 fail, then ErrNotSent           not-now
//	wrong password, TLS, ACL          ErrNotSent after one probe        password, tls, ...
//	ACL without PUBLISH               are served                        mute, up
//	ACL without SUBSCRIBE             are served                        Reason, Degraded
//	one master of a Cluster is gone   those for its keys: as above      that node: gone
//	a slot moves to another node      ErrUnavailable for a moment       unchanged
//	a refused command                 ErrUnavailable                    unchanged; 1 line in 10 s
//	the caller leaves                 ErrUnavailable at once            unchanged
//	the budget of a request is spent  ErrNotSent                        unchanged
//	MaxInFlight calls under way       wait, at most their Timeout       unchanged
//	Redis is disabled                 ErrNotSent                        Status "disabled"
//
// ErrNotSent is a models.ErrUnavailable. After every other models.ErrUnavailable the command
// may have been executed all the same.
//
// # Timeline of the hardest case
//
// A server freezes under load for 2 s and continues, with a Timeout of 100 ms. Its
// connections stay open, so only its silence shows that.
//
//	   0 ms  it freezes; calls are sent and wait
//	 100 ms  the first calls end; each counts as a failure; a probe is due
//	 150 ms  the probe is sent; calls go on, and wait for 100 ms each
//	 300 ms  the probe is late: the node is shut, and calls return ErrNotSent at once
//	1250 ms  the probe has failed: the node is away, with one line in the log
//	2000 ms  the server continues. It executes what it was sent, in order, so also calls whose
//	         callers left long ago; the probe under way is answered, but late
//	2010 ms  a probe is answered in time: the hooks of OnRecover run
//	2020 ms  the hooks are done: the node is used, with one line in the log
//
// The order of the times is certain; a busy machine delays each of them.
//
// # Where things are
//
//	client.go    Options, New, Close        call.go      one call: deadline, budget, meaning
//	batch.go     calls that go together     conn.go      whether the connection is up
//	health.go    the rules of the diagram   node.go      one node, and which node has a key
//	probe.go     asks nodes how they stand  cause.go     why a node is away
//	cluster.go   the map of the slots       eviction.go  a policy that would evict locks
//	pubsub.go    messages to all instances  tracking.go  keys whose changes Redis reports
//
// WithBudget is called once for each HTTP request, in handlers/routes.go.
//
// # Proofs
//
// health_test.go plays the diagram with a clock of its own; outage_test.go, batch_test.go and
// call_test.go freeze and kill real servers; cluster_test.go moves the slots of a real Cluster.
// With locks and limits on top, the tests of package services do the same for slow servers,
// missing permissions and failovers.
package redis
