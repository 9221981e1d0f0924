// Package middleware holds the Gin middleware of gatehouse, one per file. It knows sessions,
// locks and rate limits only by the small interfaces SessionReader, SessionBackend, LockVerifier
// and Limiter, so any Gin application can mount it.
//
// # Order
//
// Mount what an application uses in this order. Each line names what must come before it.
//
//	WarnUntrustedProxy      -
//	RequestID               -
//	AccessLog, Metrics      RequestID; they measure all that follows
//	Recovery                AccessLog and Metrics, which then see the 500
//	SecurityHeaders         -
//	Compress                Recovery; before anything writes a body
//	LimitBody               -; before anything reads a body
//	ShowProblems            -; before anything refuses a request that a page should explain
//	FindToken               -
//	RateLimit by address    FindToken, if it spares requests with a known token
//	LookUp                  FindToken; LoadSession is both
//	RateLimit by user       LookUp
//	Sessions                -; a SessionStore as its Store
//	RequireSession          LookUp
//	SameOrigin              -; before anything that a cookie authorises
//	RequireRole             LookUp
//	RequireLock             LookUp, unless LockOptions.User is set
//
// The first refusal wins: WriteProblem aborts the chain. It writes every problem, also those of
// middleware, as application/problem+json (RFC 9457), with kinds from models.ProblemKinds.
//
// # Values
//
// What a middleware finds out is a value in the gin context, for later handlers: SessionFrom,
// SessionError, TokenFrom, FromCookie, LockFrom, RequestIDFrom. WriteDecisions and
// SetDegradedHeader may be called several times: they keep what they have written so far, and
// write the headers anew.
//
// # Errors and concurrency
//
// Constructors panic with one line on an argument that is nil, empty or invalid: that is a
// mistake in the program. Nil loggers are slog.Default. All handlers are safe for concurrent
// use and start no goroutines, so nothing needs to be closed.
//
// # Without Redis
//
// The services behind the interfaces decide what happens. X-Degraded names the parts of an
// answer that were made without Redis: locks, sessions, rate-limit. A service that does not
// decide leads to 503 unavailable with Retry-After: 1, never to a pass or a sign-out.
package middleware
