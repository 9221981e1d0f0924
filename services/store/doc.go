// Package store is the database: processes, users, sessions, the revocation log, audit and
// settings, in SQLite or PostgreSQL behind the same code. The database is the truth of
// gatehouse; nothing in here knows about Redis.
//
// # First come, first served
//
// The calls of one request share one timeout (budget.go), in which they wait for a
// connection and then for their answers. What the request does otherwise does not count.
// Connections are given in the order of the calls (pool.go): database/sql alone gives a free
// one to any call that waits, so with many calls some would wait until their deadline. The
// revocation log is read on a connection of its own, and does not wait behind other calls. SQLite
// reads one row sooner than a context can be made that ends, so such a read has none (pool.atOnce).
//
// # Prepared once
//
// A connection prepares each statement once (sqlite_statements.go; the driver of PostgreSQL does
// it by itself): to parse a query takes SQLite longer than to answer it.
//
// # Writes share commits
//
// SQLite has one writer, and a commit waits for the disk (synchronous=FULL). So writes that come
// at the same time share one (group.go): the fsync costs the same for one write or for 64.
//
//	write 1   BEGIN, write 1, COMMIT . answered
//	write 2       waits .............. leads: BEGIN, write 2, write 3, COMMIT . answered
//	write 3          waits ................................................... answered
//
// No write waits for others to come: if the connection is free it is done at once. Else it waits
// in line. The first in line leads the next group: it runs the writes in the order in which they
// came, until none waits, there are 64, or 20 ms have passed. Then it commits, and all are answered.
//
// Each write has a savepoint, and fails or panics alone. If the COMMIT fails, or SQLite itself ends
// the transaction (a full disk), all that were in it fail with models.ErrUnavailable, whatever they
// had read in it.
//
// A write whose caller gives up in line is not done. Once begun, it is waited for, as long as the
// group takes: SQLite rolls back the whole transaction if a statement that writes is interrupted.
// Close completes what was accepted.
//
// The entries of the revocation log are numbered in the order of the writes, and a reader sees
// those of a group at once.
//
// With PostgreSQL each write has a transaction of its own; the server groups their commits.
//
// # A write that is acknowledged is there
//
// A write is acknowledged only if a start would find it. Before and after each group, and
// every second, the SQLite file and its journal must be the ones that are open
// (sqlite_file.go). Until they are, writes fail and the program is not ready.
//
// How writes end also tells whether others can succeed (write.go). A full disk or a
// read-only server says so at once; calls that time out say so when no write was answered
// since. Only then does readiness write something itself, at most once a second, to find out
// when writes succeed again.
//
// # When something is gone
//
//	database away       models.ErrUnavailable, within the timeout
//	read-only           reads go on; changes answer models.ErrUnavailable
//	SQLite file moved   the same, until it is back or the program is restarted
//	restored            copies of sessions from before it do not count (see services/session)
package store
