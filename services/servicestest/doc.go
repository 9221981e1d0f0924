// Package servicestest is the test harness: real servers on ports of their own, the means to
// break them, and the means to wait for what follows. It imports nothing of gatehouse, so
// end-to-end tests use it, too. Everything that it starts ends with the test, or with the test
// binary, however that ends. Clients of Redis come from services/redis/redistest.
//
// What it starts:
//
//	StartRedis           redis-server, with arguments (TLS, ACL, maxmemory, ...)
//	StartSentinel        a master, its replica, and a sentinel that watches them
//	StartCluster         three masters; StartReplicas gives each a replica
//	StartPostgres        an empty database of a server that the test binary's tests share
//	KeptPostgres         a database that the test binary's tests share
//	Copies               SQLite files, each a copy of one that is made once
//	StartPostgresServer  a server for one test, which may break it
//	NewProxy             a TCP proxy between one client and a server
//	BuildGatehouse       the program, with flags of go build; Unchanged, at the end
//	StartGatehouse       an instance of the program
//	Start, RunAgain      a process: any command, or this test binary once more (Again is its command)
//	FreeAddr             an address where no server is
//
// What it breaks:
//
//	Freeze, Thaw           SIGSTOP and SIGCONT: of a Redis, a PostgreSQL, a process
//	Kill, Start, Restart   a Redis that is gone, and back: empty, unless its arguments (--dir and
//	                       --appendonly or --save) make it keep its data in a file
//	Kill, Start            a PostgreSQL that crashes and recovers; it loses its last writes, unless
//	                       its settings (synchronous_commit, full_page_writes) forbid that
//	Do                     any command: FLUSHALL, SCRIPT FLUSH, CLIENT KILL, CONFIG SET, ...
//	Follow, LoseMaster,    replication: a replica that misses writes and becomes the master
//	Promote
//	MoveSlot               a slot of a Cluster moves while clients use it
//	SetReadOnly, Stop      a PostgreSQL that refuses writes, or is gone
//	Proxy                  Cut and Restore, Reset, Stall, StallOpen and Resume, SetLatency,
//	                       LoseReplies, Retarget
//
// What it waits for:
//
//	Eventually      something that must become true, however long this machine takes
//	Within          a promise with a time: it fails when the promise is broken, or kept too late
//	By              the same, counted from an earlier moment
//	Slack           what this machine may have added to a time that a test measured itself
//	Patience        the time limit of a client that needs one
//	LogLines        a log, or the output of a process, that is read while it is written
//	WaitFailedOver  a sentinel that has made the replica the master
//
// A server that is not installed fails the tests that need it, unless make test has said that it
// leaves them out: see Need. LongProof tells a proof to run in full.
//
// Tests wait for a condition or a signal, not until something has probably happened. What is about
// time runs on fake time (testing/synctest), or measures against the bound of the promise with
// Within, By or Slack: they add what the machine itself was late, up to 40 s, so that a busy machine
// does not fail a test and a quiet one is held to the promise. The proofs, which inject faults at
// random, pause at random between them.
package servicestest
