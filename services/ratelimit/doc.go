// Package ratelimit decides whether a request is within its rate limits, exactly and across
// instances, with Redis as the shared count. It needs a redis.Client and nothing else: no
// database, no YAML (package policyfile reads that) and no metrics registry.
//
// # Promise
//
// No policy admits more than its Limit in any Window, across all instances, by the clock of
// Redis. A decision takes at most one Timeout of the redis.Client, and without Redis each policy
// does what its OnRedisDown says. What living instances admitted still counts when Redis comes
// back or loses its data.
//
// # A key, as an instance sees it
//
// Each instance keeps what it admitted within the window (outbox.go). Every call says what Redis
// must still have of the key (expect.go). That is the last admission of a log, the nonce of a
// bucket, or the latest block. If it is missing, the script decides nothing.
//
//	              Redis lacks what it must have, a connection was lost,
//	              Redis was away, or something was admitted without it
//	+---------+ -------------------------------------------------> +--------+
//	| in sync |                                                    | behind | <--+
//	+---------+ <---------------+                                  +--------+    |
//	 decides by                 | all of it                             |        | it failed
//	 calls, blocks              | acknowledged                          v        |
//	 and denials                |                   calls wait     +----------+  |
//	                            +--------------------------------- | flushing | -+
//	                                                               +----------+
//
// A key that is behind is flushed before Redis decides about it again. All others that are
// behind follow in the background.
//
// # A decision
//
//	Take -> prepare (request.go): policies of the set, keys, costs
//	     -> denied (denial_cache.go): refused less than a second ago? Redis is not asked
//	     -> takeFromRedis (decide.go): units of blocks (block.go), then for the rest units that were
//	          counted ahead for busy keys (auto_block.go), or one script
//	          (call.go, lua/take.lua; alone.go for requests that are alone in their group)
//	     -> takeLocally, if Redis did not answer: the same algorithms in Go (local.go)
//
// A sliding log (sliding_log.go, lua/sliding_log.lua) counts limits up to 1,000, GCRA (gcra.go,
// lua/gcra.lua) any limit. Each is written once in Go and twice in Lua: lua/take_log.lua
// and lua/take_bucket.lua, which make most decisions, have one each in one piece, at half of what
// functions cost Redis. The tests hold all three against each other.
//
// A third one would need a file in both, and a value of models.Algorithm and RATE_LIMIT_ALGORITHM.
// And it needs a branch wherever a burst above 0 now means GCRA:
//
//	this instance           ruleOf and counter (algorithm.go); state, size (local.go)
//	a script                look, answer (lua/hit.lua); lua/flush.lua, lua/refund.lua; alone.go
//	their text, arguments   loadScripts, addTakeArgs, refundArgs (scripts.go); redisKey (keys.go)
//	what Redis must have    expected (expect.go), has (losses.go)
//	what is published       outbox.go, record.go, flush.go, flush_send.go
//	refunds                 admission (request.go), undo (refund.go)
//	highest limits          models.Policy.Validate, check (metrics.go)
//
// Package policyfile passes the name on, and needs no change.
//
// # Trust
//
//   - The server's clock says when something was admitted. For a key it never goes back: the
//     newest admission is the earliest now. In a log that may be 50 ms ahead of the clock.
//   - A denial is believed for a second after its call was sent, and never past the moment when
//     the request may pass. While one request asks again, it is believed 100 ms more.
//   - A unit of a block is used until the block's length after its call was sent, less a
//     hundredth and 1 ms. That is by the instance's monotonic clock. Redis counts the block
//     a window longer than its length, from when the script ran.
//   - Units that were counted ahead are used until their block's end in the same way. A log counts
//     each from that end on. A bucket counts them at once, and is never less full than what blocks
//     hold: what would leak out until their end is in it when a block is taken (lua/take.lua), and
//     nothing is refunded until then (lua/refund.lua). So a unit is counted whenever it is used.
//   - Without Redis the instance's monotonic clock decides, on what this instance admitted.
//   - A member of a log has a random id. So an instance puts back all of a call or nothing, and
//     to repeat a flush adds nothing. A bucket has a nonce; a level that is flushed twice may count
//     twice, which errs on the side of refusing.
//
// # Failures
//
//	what happens                   what callers see
//	-----------------------------  ----------------------------------------------------------
//	Redis is away, or too slow     Degraded decisions: by this instance alone (local), Allowed
//	                               (open), or models.ErrUnavailable (closed)
//	a reply is lost                Degraded; the admission counts once in a log, at most twice
//	                               in a bucket or block
//	Redis is emptied or restarted  nothing; each instance puts back what it admitted before it
//	                               decides, all keys within a second in which Redis answers it
//	a replica takes over           the same, for what the replica missed
//	one key is evicted             the same, for that key
//	the clock of Redis is put      the key's time stands still until the clock has caught up;
//	back                           limits hold, and requests may be refused longer
//	the key holds something else   Degraded, and one line in the log
//	an instance ends               its blocks count until a window after their end; after a
//	                               loss what only it admitted is forgotten
//	more than MaxKeys keys         the least recently used are forgotten here; Redis has them
//	a policy is invalid            an error
//
// # Timeline of the hardest case
//
// A limit of 10 in a minute, two instances A and B that have admitted 4 each. Redis crashes, and
// starts again without data.
//
//	  0 ms  Redis ends. A's next call fails; A decides by its own 4 and admits a fifth
//	400 ms  Redis is there again, empty
//	650 ms  A's probe is answered, at the latest. Before A uses Redis it publishes its 5, with
//	        the server's times, and for the fifth how long ago it was
//	660 ms  A asks Redis again: 5 of 10 are left. Redis cannot know of B's 4 yet
//	900 ms  B's probe is answered, and B publishes its 4: 9 are counted, once each
//
// The order of these is certain; a busy machine delays each of them. So B's silence can let up to
// 4 more pass in the window, which is what B admitted, and no more. With one instance not one
// more passes. If Redis is emptied without a lost connection, B notices at its next call. It also
// checks a sample of its keys, five times a second.
//
// # Where things are
//
//	limiter.go        Options, New, Take, Peek       refund.go        Refund, Reset
//	policy_set.go     policies by configuration      close.go         Close, background tasks
//	request.go        a hit made ready               keys.go          names of keys
//	decide.go         a decision, by Redis or not    call.go          one call, again after a loss
//	algorithm.go      rules; which algorithm counts  sliding_log.go   one of them
//	gcra.go           the other                      local.go         what this instance counts
//	denial_cache.go   refusals in memory             bounded.go       maps with a bound
//	block.go          blocks in use                  block_take.go    taking and returning them
//	auto_block.go     blocks that size themselves    pace.go          how busy a key is
//	leftovers.go      giving back what is left
//	outbox.go         what this instance admitted    expect.go        what Redis must have of it
//	record.go         what Redis answered            losses.go        finding what it lost
//	flush.go          one key's flush: its state     flush_send.go    when, and what is sent
//	scripts.go        the scripts, their arguments   metrics.go       counters by policy
//	policyfile/       policy sets from YAML          lua/             the scripts
//
// # Proofs
//
// The files fuzz_test.go and script_test.go hold Lua against Go, step by step, and window_test.go
// both to the microsecond. Go is held against naive models by sliding_log_test.go and gcra_test.go;
// local_test.go and denials_test.go are tables. The oracle of proof_test.go checks 10^7 decisions
// by four processes, while Redis is emptied, restarted and replaced. Single losses are in
// put_back_test.go and loss_test.go. "make proof" runs all of it in full.
package ratelimit
