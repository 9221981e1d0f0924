// Package services does the work of the application: Accounts signs users in and manages them,
// Processes edits processes under locks. It joins the packages below it, which do not know
// each other: redis, lock, ratelimit and session.
//
//	sign in      handlers -> Accounts.AllowSignIn -> ratelimit
//	                      -> Accounts.SignIn      -> Passwords, session, store (with audit)
//	edit         handlers -> Processes.Lock       -> store, lock (grant), store (its version)
//	                      -> Processes.Replace    -> lock (verify), store (if it has that version)
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
// # History
//
// Each write of a process becomes a version in the statement that makes it (a trigger of the
// database), with how it was made, under which grant and in which request (models.WithRequestID).
// A draft is what was typed and not saved. Recorder writes what only explains, such as refusals,
// behind the requests; what it cannot write is dropped.
//
// All types are safe for concurrent use. But for Recorder they start no goroutines, and have
// nothing to close.
package services
