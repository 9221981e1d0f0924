// Package session keeps the sessions of an application in its database, with copies in Redis
// and in memory that save it nearly all reads.
//
// # Promise
//
// An ended session is refused at once by the instance that ended it, and by every other one
// within 2 s, whatever Redis does and whatever the clocks say. No session ends early: without
// Redis each is read from the database, at most once in 2 s and instance. If neither
// a valid copy nor the database answers, the answer is models.ErrUnavailable: never
// models.ErrNotFound, never a session.
//
// # States of a copy
//
// A copy may say yes, never no: a missing, expired or doubtful one is read again. A copy is made
// at an offset of the revocation log: what the instance had read of it before it read the row.
//
//	           the row, or a valid copy in Redis, was read
//	  +---------------------------------------------------------+
//	  |                                                         v
//	+------+   ended, expired, evicted                      +-------+
//	| none | <--------------------------------------------- | valid | -> Get answers from memory
//	+------+                                                +-------+
//	  ^   ^                                                  |  ^  |
//	  |   |   2 s old and not tracked, or change reported    |  |  |  log not read for 2 s
//	  |   |  +-------+                                       |  |  v
//	  |   +--| stale | <-------------------------------------+  +-----------+
//	  |      +-------+                   log read, no entry --> | untrusted |
//	  |                                                         +-----------+
//	  +--------------- log read, an entry about it -----------------+
//
// While a copy is stale or untrusted, Get reads a newer one, and the row in the end.
//
// # Trust
//
// Ending. Each end of a session and each change of a user's rights writes one entry to the log,
// in the same transaction. Entries are numbered in commit order, without gaps. An instance reads
// the log once a second, and soon after a hint by Redis or Options.Watch. What it has read is
// trusted for 2 s by its monotonic clock, from the instant before the query was sent. A copy is
// valid if the log is trusted, the copy's offset is in the part that is held (15 min), and no
// later entry names its session, its user or everybody. The offset has a random nonce, so a
// restored database does not pass for the old one. No other clock takes part.
//
// Data. A copy in memory has the current data for 2 s after it was read, or as long as Redis
// would have reported a change (redis.Tracking), 10 min at most. Data saved while Redis did not
// take the new copy is announced by an entry in the log.
//
// Timeouts. The row says when a session ends, by the clock of the instance that wrote it. A
// session that is used is written at most once a minute, or once in a tenth of the idle timeout
// if that is less, and as much ahead (activity.go). So it ends as much late at most, never early,
// even if the instance that served it has crashed.
//
// Copies in Redis are encrypted and bound to their session and version: write access to
// Redis can neither forge one nor move it to another session.
//
// # Failures
//
//	what happens                     Get                          End, SaveData and the others
//	-------------------------------  ---------------------------  ----------------------------
//	Redis is gone, or hangs          memory for 2 s, then the row elsewhere within 2 s
//	Redis does not report changes    memory for 2 s, then Redis   as always
//	Redis is emptied, or has old     the row; an old copy is not  as always; saved data that
//	copies (dump, failover)          valid if its session ended   Redis lost: in 10 min
//	the database is gone             copies for 2 s, then         models.ErrUnavailable
//	                                 models.ErrUnavailable
//	the revocation log cannot be     the row                      as always
//	read
//	the database is restored         the row; one line is logged  as always
//	an instance crashes              as always                    as always
//	an instance freezes for long     the row, until it has read   as always
//	                                 the log
//	a secret is not known here       the row                      as always
//	clocks differ                    timeouts differ as much      as always
//
// # Timeline of the hardest case
//
// Instance B reads a session that A then ends, freezes for 20 min, and stores what it has read.
//
//	 0.000 s  B has read the log up to entry 41 and sends its query for the row
//	 0.001 s  the database answers; B freezes before it looks at the answer
//	 1.000 s  A ends the session: one transaction deletes the row and writes entry 42. A applies
//	          it, sends a hint and returns. A refuses the token from now on
//	 1.010 s  instance C gets the hint, reads the log and refuses the token. If the hint is lost,
//	          C reads the log by 2.0 s; if it cannot, C uses no copy from 3.0 s on
//	16 min    A and C drop entry 42, which is 15 min old: no copy made before it is valid there
//	20 min    B continues and stores its copy, made at 41, in memory and in Redis
//	 +  1 ms  a request at B: its log was last read 20 min ago, so B uses no copy, reads the
//	          row, and finds none
//	 +  2 ms  a request at C: the copy in Redis is older than the part of the log that C holds.
//	          C reads the row, and finds none
//	 + 50 ms  B reads the log on from 41. Entry 42 is about the session, and its copy is not
//	          valid; if entry 42 has been removed, no copy from before is
//
// # Where things are
//
//	cache.go     Options, NewCache, Close     database.go        what a Database has to promise
//	read.go      Get: memory, Redis, the row  write.go           Create, Rotate, SaveData
//	revoke.go    all that ends sessions       revocation_log.go  what makes copies not valid
//	memory.go    copies in memory             redis_copy.go      copies in Redis; seal.go
//	activity.go  when sessions were used      tracking.go        changes that Redis reports
//
// # Proofs
//
// proof_test.go runs three processes and random work while Redis freezes, dies, is emptied, comes
// back with old data and fails over: no read that begins 2 s after an acknowledged end is
// accepted, and no valid session is refused. proof_resurrection_test.go and proof_pause_test.go
// play the timeline above; revocation_log_test.go drives the follower in fake time;
// timeouts_test.go checks the timeouts to the millisecond; database_test.go holds each Database to
// its contract. `make proof` runs them in full.
package session
