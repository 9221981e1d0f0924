// Package services does the work of the application: Accounts signs users in and manages them,
// Processes edits processes under locks. It joins the packages below it, which do not know
// each other: redis, lock, ratelimit and session.
//
//	sign in      handlers -> Accounts.AllowSignIn -> ratelimit
//	                      -> Accounts.SignIn      -> Passwords, session, store (with audit)
//	edit         handlers -> Processes.Lock       -> store, lock (grant), store (its version)
//	                      -> Processes.Replace    -> lock (verify), store (if it has that version)
//	take over    handlers -> Processes.Lock       -> lock (status), store (audit), lock (replace), store (end)
//	ask          handlers -> Processes.Ask        -> lock (status), store (request), lock (event)
//	give         handlers -> Processes.AnswerRequest, or Processes.KeepSettling
//	                                              -> store (audit), lock (replace), store (end, request)
//	fetch        handlers -> Processes.Asked      -> lock (extend), store (fetched, version)
//	draft        handlers -> Processes.SaveDraft  -> store
//	restore      handlers -> Processes.Restore    -> lock (verify), store (a version, the write)
//	force        handlers -> Accounts.ForceLock   -> lock (status), store (audit), lock (end)
//
// # Trust
//
// The database is the truth. A lock tells users apart in time, but each write carries the
// version that its writer had read after the grant. The database refuses the write if another
// one came in between, whatever Redis says. Sessions and users are rows; Redis has copies.
//
// # Failures
//
//	Redis is gone      locks, sessions and limits go on as their packages say; results are degraded,
//	                   or models.ErrUnavailable where OnRedisDown is closed
//	database is gone   models.ErrUnavailable from every method
//	audit is full      models.ErrUnavailable, and the action is not done
//	too many sign-ins  models.ErrUnavailable after 3 s of waiting for a core
//
// # Who has the lock next
//
// A request for a lock (models.LockRequest) is a row. What becomes of it is decided by one statement
// that finds it pending; a lock passes on by one script that finds the grant that was seen. So two
// instances, or an answer and a withdrawal, never leave two holders: whichever is second gives the
// lock back. The asker's token follows from the request, so any instance can hand it out.
// KeepSettling does what no user does, and says who comes first. A grant that a user ended is refused
// by the database rule, also where Redis is not known.
//
// # History
//
// Each write of a process becomes a version in the statement that makes it (a trigger of the
// database), with how it was made, under which grant and in which request (models.WithRequestID).
// A draft is what was typed and not saved. Recorder writes what only explains, such as refusals,
// behind the requests; what it cannot write is dropped.
//
// All types are safe for concurrent use. But for Recorder and Processes.KeepSettling they start no
// goroutines, and have nothing to close.
package services
