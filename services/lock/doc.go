// Package lock grants locks on resources to holders, across all instances of an application, by
// scripts in Redis.
//
// # Promise
//
// While Redis keeps what it was told, a lock has one holder at a time, waiters are served first
// come, first served, and work under WithLock ends before its lease can. A server that loses the
// locks gets them back from their holders; as that takes time, each grant has a fence, a number
// that only grows, by which a database refuses the writes of a holder that is too late (package
// fence). Without Redis a Locker refuses at once, or, if Options.OnRedisDown is open, excludes
// within its instance and says so.
//
// # States
//
// Of a lock at the server (lua/common.lua):
//
//	       TryAcquire, Acquire: free, and the queue is empty
//	   +-----------------------------------------------------------------+
//	   |                                                                 v
//	+------+  given back, forced or expired: the head  +-------------+  +------+
//	| free |  of the queue is next                     | unconfirmed |->| held |
//	+------+ ----------------------------------------> +-------------+  +------+
//	   ^                                                      |            |
//	   |          its instance is silent for 240 ms: the next |            |
//	   +------------------------------------------------------+------------+
//
// A grant is unconfirmed until its waiter's next call, which makes its lease a whole one. Replace
// goes from held to held: it ends one grant and makes another in the same step, and the queue
// stays.
//
// Of a grant in the instance that made or extended it (local.go):
//
//	             Redis granted it                     granted or extended without Redis (open)
//	                    v                                                v
//	+-----------+    +---------+   extended without Redis (open)   +----------+
//	| forgotten |<---| in sync |---------------------------------->| degraded |
//	+-----------+    +---------+                                   +----------+
//	   |     |            ^ ^               reasserted                |    |
//	   |     +------------+ +----------------------------------------+    |
//	   |      reasserted           +------+                                |
//	   +-------------------------->| lost |<-------------------------------+
//	     another holder has it,    +------+    another holder has it, or it was ended elsewhere
//	     or it was ended
//
// The end of a lost grant is logged and counted. Its claim is refused, and the context of its
// work ends.
//
// # Trust
//
// The server's clock ends leases and makes fences; no wall clock of an instance is compared with
// it. An instance trusts a lease by its monotonic clock, from the instant before it sent the
// request until its TTL has passed, less a 500th and 2 ms (Lock.trustedUntil). A pushed grant,
// which a message brings to a waiter of WithLock, is trusted for 240 ms from the instance's last
// answered heartbeat, if its fence shows that it was made after that. What the next call answers
// replaces that.
//
// Each shard has an epoch, a random text beside its highest fence. A server that answers another
// epoch has forgotten the shard's locks, and the holders' instances reassert them. For 2 s then,
// its free locks are only for those, unless the asking instance is the only one and knows of
// no grant of the lock.
// A lease that ended by itself can be reasserted as well. A grant that was given back or forced
// cannot: its tombstone refuses that for as long as an instance could try.
//
// A holder's last sign of life (LockStatus.ActiveAt) is its grant or its last extend, by the
// server's clock. Without Redis an instance knows of those that it answered itself. A server that
// forgot it counts from when the grant was reasserted: a holder is protected too long rather than
// too little.
//
// An acquire says until when, in the server's time, its caller waits for the answer. Executed
// later, by a server or network that was frozen, it takes nothing. The server's time is estimated
// from the quickest reply of the last 10 s.
//
// Wall clocks (Options.Clock) only fill in Since, ExpiresAt and the end of signed tokens.
//
// # Failures
//
//	what happens                 calls                            work under WithLock
//	---------------------------  -------------------------------  ------------------------------
//	Redis is away, closed        models.ErrUnavailable; releases  ends before the lease can:
//	                             are sent when it is back         LostError, "backend"
//	Redis is away, open          this instance's table decides;   goes on; a new lock has no
//	                             answers are Degraded             fence
//	Redis is back, open          grants are reasserted, and ends  goes on, or "revoked" if
//	                             sent first, from the outbox      another instance was first
//	a release is not answered    from the outbox, and before any  -
//	                             answer about that lock is taken
//	the server lost its locks    free ones: refused for 2 s;      goes on, the next slot with a
//	                             holders go on                    higher fence, or "revoked"
//	the lock is forced, or its   models.NotHeldError              "revoked", at most 0.5 s later
//	holder replaced
//	MaxHold has passed           models.NotHeldError              "expired"
//	an instance crashes          free when the lease ends; its    -
//	                             waiters are passed over
//	an instance is paused for    models.NotHeldError              ctx.Err is right at the first
//	longer than the lease                                         look
//	a reply is lost              the token repeats the grant      goes on
//	a caller leaves              the attempt is given back, now   the lock is given back
//	                             or from the outbox
//	a message is lost            a waiter is woken by the next    as always
//	                             heartbeat, 80 ms later
//	Redis evicts a lock's key    free; models.NotHeldError        "revoked"
//
// # Timeline of the hardest case
//
// A holds the lock in WithLock at one instance, with a TTL of 30 s, and B waits at another. A's
// instance loses its way to Redis, and Redis loses its data.
//
//	 0.00 s  A works under fence 100 in epoch E, trusted for 30 s; its instance is cut off
//	 0.10 s  the server is emptied
//	 0.18 s  B's instance sends its heartbeat: the shard has no epoch, so E2 begins, and with it
//	         2 s in which free locks are only for holders that reassert them. B queues anew
//	 2.18 s  nothing was reasserted. B's next heartbeat grants the lock to B, with the server's
//	         time in microseconds as its fence, which is above 100
//	 2.20 s  both believe that they hold the lock. B writes with its fence; a write of A carries
//	         fence 100, and fence.Guard refuses it
//	 4.00 s  A's instance reaches Redis again and reasserts the grant: B has the lock. That is
//	         logged as a conflict, and A's context ends with LostError, "revoked"
//	30.00 s  had A's instance stayed cut off, A's context would have ended with LostError,
//	         "backend", a little before
//
// If A's instance is not cut off, it observes E2 by its own heartbeat within 0.5 s and reasserts
// the grant within the 2 s, with a new fence: B goes on waiting.
//
// # Where things are
//
//	locker.go       the Locker                               holder.go      what a holder may do
//	acquire.go      one attempt                              events.go      what happens to locks
//	queue.go        waiters, and pushed grants               heartbeat.go   one for each shard
//	withlock.go     calls that share a lease                 lease.go       extending, losing it
//	local.go        the table of one instance                degraded.go    its work without Redis
//	outbox.go       what Redis has not acknowledged          tombstones.go  what is over
//	reconcile.go    reasserting grants                       shard.go       epochs, keys
//	force.go        ends others' locks                       replace.go     gives them to another
//	list.go         lists                                    held.go        how many a user has
//	all.go          all at once                              inspect.go     one with its queue
//	statuses.go     some of them                             local_index.go which of the table
//	peers.go        whether there are other instances        token.go       signed tokens
//	scripts.go      running scripts                          reply.go       what they answer
//	record.go       the text of a grant                      lua/           the scripts
//
// lua/common.lua lists the keys of a lock. There, head decides which waiter is next and which is
// passed over, advance grants the lock to it, and expire ends leases.
//
// # Proofs
//
// proof_*_test.go: histories of several instances under faults are linearizable (proof_test.go,
// with Cluster and Sentinel in proof_topology_test.go); no grant is orphaned, and work under a
// lost lock ends within 1 s (proof_forget_test.go); the server is emptied over and over
// (proof_emptied_test.go); processes are paused (proof_process_test.go); the timeline above is
// measured by proof_failover_test.go. `make proof` runs them for long.
package lock
