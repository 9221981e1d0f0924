// Package handlers is the HTTP face of gatehouse: the API under /api/v1, the pages, and the
// health checks. Register adds all routes; the code of a resource is in the file of its name.
//
// # A request's way
//
// Requests are refused in this order: by route (404, 405), by the address's rate limit, by the
// session's look-up (503), by the user's rate limit (429), without a session (401), from another
// origin (403), by role (403), and then by the handler: body, existence, lock token, If-Match,
// and the rule of the database.
//
// A handler reads its input (request.go, body.go), calls a service, and answers. It returns all
// errors: handle passes them to fail in problem.go, the one place that maps a service's
// errors to problems; their statuses are in models.ProblemKinds. Pages show the same problems (problem_pages.go).
//
// Before all that, budgets (routes.go) bounds what a request may wait: its Redis calls share one
// REDIS_TIMEOUT, its database calls one DATABASE_TIMEOUT.
//
// # Waiting
//
// Event streams and requests that queue for a lock stay open. places limits how many, for each
// user and in all, so that other requests always find a connection. They end when their
// session ends (whileAllowed, identity.go) and when the server shuts down (Handlers.Drain).
//
// # Without Redis
//
// All routes work. Answers made without Redis have X-Degraded, and the pages show a banner. A
// policy that is closed leads to 503 unavailable. Without the database all routes that need a
// session or a process answer 503.
package handlers
