package handlers

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
)

// problemKind is one row of the table of errors. Its help page is
// /problems/<name>.
type problemKind struct {
	Status int
	Title  string
	Help   string
}

// problemKinds are all the problems the API answers with.
func problemKinds() map[string]problemKind {
	return map[string]problemKind{
		"bad-request":            {http.StatusBadRequest, "Bad request", "The body is not one JSON document in UTF-8, or it is empty where one is required."},
		"unauthenticated":        {http.StatusUnauthorized, "Sign in first", "Send Authorization: Bearer with a token from POST /api/v1/auth/login, or sign in on the page. A token ends when it is unused for a while, after its longest life, at sign-out, and when somebody ends the session."},
		"invalid-credentials":    {http.StatusUnauthorized, "Wrong e-mail or password", "The address is unknown, the password is wrong, or the account is disabled. An administrator can set a new password."},
		"forbidden":              {http.StatusForbidden, "Not allowed", "Your roles do not include this. Viewers read; editors also lock, create and edit; administrators also force locks and manage users. Or requests from your address are refused altogether."},
		"cross-origin":           {http.StatusForbidden, "Request from another site", "A browser sent this from a page of another origin. Use the page of this server, or a Bearer token."},
		"not-found":              {http.StatusNotFound, "Not found", "There is nothing at this address, or no longer."},
		"method-not-allowed":     {http.StatusMethodNotAllowed, "Method not allowed", "The Allow header lists the methods of this address."},
		"lock-not-held":          {http.StatusConflict, "You do not hold the lock", "The lock token is not, or no longer, the holder's: the lock expired, was released or forced, or the token belongs to another process or user. Lock the process again and look at its current state before you write."},
		"version-conflict":       {http.StatusConflict, "Somebody else wrote in between", "Nothing was overwritten. The member current is the process as it is now: merge your change into it and lock again."},
		"conflict":               {http.StatusConflict, "Conflict", "The e-mail address is already in use, or the change would leave no administrator."},
		"precondition-failed":    {http.StatusPreconditionFailed, "Not the current version", "If-Match names another version than the current one. The member current is the process as it is now."},
		"content-too-large":      {http.StatusRequestEntityTooLarge, "Body too large", "A body has at most 1 MiB, a form of the page at most 64 KiB."},
		"unsupported-media-type": {http.StatusUnsupportedMediaType, "Unsupported media type", "Send the body as Content-Type: application/json. The forms of the page are application/x-www-form-urlencoded; multipart is not taken."},
		"validation":             {http.StatusUnprocessableEntity, "Invalid input", "The member errors names each field and what is wrong with it."},
		"locked":                 {http.StatusLocked, "Locked by somebody else", "The member holder says who has the lock and since when. Try again after Retry-After seconds, or queue with Prefer: wait=30."},
		"lock-token-required":    {http.StatusPreconditionRequired, "Lock token required", "Lock the process first (POST .../lock) and send the lockToken it answers as X-Lock-Token."},
		"too-many-locks":         {http.StatusTooManyRequests, "Too many locks", "You have as many processes locked as one user can have at a time; the member limit says how many. Give one back first, or let one end."},
		"quota-exceeded":         {http.StatusTooManyRequests, "Too many requests", "Wait for Retry-After seconds. The RateLimit headers say what is left."},
		"too-many-streams":       {http.StatusTooManyRequests, "Too many event streams", "A user may have only so many event streams open at one instance (the member limit, STREAMS_PER_USER), and an instance only as many as its limit of open files allows. Close one that is not needed."},
		"unavailable":            {http.StatusServiceUnavailable, "Not available now", "The database cannot be asked, or what the servers share cannot and the configuration refuses to work without it, or the server is shutting down. Nothing was changed unless you were told so; try again after Retry-After seconds."},
		"internal":               {http.StatusInternalServerError, "Internal error", "This is a fault of the server. Report it with the requestId."},
	}
}

func problemFor(name, detail string) models.Problem {
	kind := problemKinds()[name]
	return models.Problem{Name: name, Title: kind.Title, Status: kind.Status, Detail: detail}
}

// requestError is a problem known where the request is read.
type requestError struct{ problem models.Problem }

func (e *requestError) Error() string { return e.problem.Detail }

func badRequest(detail string) error { return &requestError{problemFor("bad-request", detail)} }

var errSessionEnded = errors.New("the session ended")

// fieldConflict names the input that a business rule refused, and says why.
type fieldConflict struct {
	field, detail string
	err           error
}

func (e *fieldConflict) Error() string { return e.field + ": " + e.err.Error() }
func (e *fieldConflict) Unwrap() error { return e.err }

// handle makes a gin handler of one that returns an error, which fail answers. One that
// returns nil has answered, or leaves that to those after it.
func (h *Handlers) handle(do func(c *gin.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		if err := do(c); err != nil {
			h.fail(c, err)
		}
	}
}

// fail answers an error: the one place where errors become HTTP.
func (h *Handlers) fail(c *gin.Context, err error) {
	var quota *quotaError
	if errors.As(err, &quota) {
		middleware.RefuseQuota(c, quota.decisions)
		return
	}
	problem := problemOf(err)
	switch problem.Status {
	case http.StatusServiceUnavailable:
		c.Header("Retry-After", "1")
		_ = c.Error(err) // for the access log
	case http.StatusTooManyRequests:
		c.Header("Retry-After", "1")
	case http.StatusUnauthorized:
		c.Header("WWW-Authenticate", "Bearer")
	case http.StatusInternalServerError:
		_ = c.Error(err)
	}
	var refused *models.NotAcquiredError
	if errors.As(err, &refused) && problem.Status == http.StatusLocked {
		// Rounded down: never after the lock can be free.
		c.Header("Retry-After", strconv.Itoa(int(refused.Status.TTL/time.Second)))
		markLocks(c, refused.Status.Degraded)
	}
	var notHeld *models.NotHeldError
	if errors.As(err, &notHeld) {
		markLocks(c, notHeld.Status.Degraded)
	}
	middleware.WriteProblem(c, problem)
}

func problemOf(err error) models.Problem {
	var request *requestError
	var invalid *models.ValidationError
	var conflict *models.ConflictError
	var refused *models.NotAcquiredError
	var notHeld *models.NotHeldError
	var field *fieldConflict
	var tooMany *models.TooManyLocksError
	switch {
	case errors.As(err, &request):
		return request.problem
	case errors.As(err, &invalid):
		return with(problemFor("validation", "Correct the fields named in errors."), "errors", invalid.Errors)
	case errors.Is(err, errSessionEnded):
		return problemFor("unauthenticated", "The session ended while the request waited. Sign in again.")
	case errors.As(err, &conflict) && errors.Is(err, models.ErrPreconditionFailed):
		return with(problemFor("precondition-failed", "The process is now at version "+etag(conflict.Current.Version)+"; merge your change into current."), "current", conflict.Current)
	case errors.As(err, &conflict):
		return with(problemFor("version-conflict", "Somebody else wrote in between; nothing was overwritten. Merge your change into current and lock again."), "current", conflict.Current)
	case errors.As(err, &field):
		return with(problemFor("conflict", field.detail), "field", field.field)
	case errors.Is(err, models.ErrUnavailable):
		return problemFor("unavailable", "Try again in a moment.")
	case errors.As(err, &notHeld):
		detail := "The lock token does not hold the lock, or no longer. Lock the process again."
		if errors.Is(err, models.ErrOtherFence) {
			detail = "Another grant has the lock by now: look at who holds it, and force that one if you still have to."
		}
		p := with(problemFor("lock-not-held", detail), "isLocked", notHeld.Status.Held)
		if notHeld.Status.Held {
			p.Members["holder"] = notHeld.Status.Holder
		}
		return p
	case errors.As(err, &tooMany):
		return with(problemFor("too-many-locks", "You have "+strconv.Itoa(tooMany.Limit)+" processes locked. Give one back first, or let one end."), "limit", tooMany.Limit)
	case errors.As(err, &refused) && !refused.Status.Held:
		return with(problemFor("locked", "The lock is about to be another's: of a waiter, or of its holder, who is about to get it back. Try again in a moment."),
			"expiresIn", seconds(refused.Status.TTL))
	case errors.As(err, &refused):
		p := with(problemFor("locked", refused.Status.Holder.Email+" holds the lock. Try again later, or queue with Prefer: wait=30."), "holder", refused.Status.Holder)
		p.Members["expiresIn"] = seconds(refused.Status.TTL)
		return p
	case errors.Is(err, models.ErrLockTokenRequired):
		return problemFor("lock-token-required", "Lock the process first and send the lockToken as X-Lock-Token.")
	case errors.Is(err, models.ErrBadCursor):
		return with(problemFor("validation", "Correct the fields named in errors."), "errors", models.Invalid("cursor", "is not one that this list answered").Errors)
	case errors.Is(err, models.ErrInvalidCredentials):
		return problemFor("invalid-credentials", "The e-mail address or the password is wrong.")
	case errors.Is(err, models.ErrNotFound):
		return problemFor("not-found", "There is nothing at this address, or no longer.")
	case errors.Is(err, context.Canceled): // nobody waits for the answer
		return problemFor("unavailable", "The request was given up.")
	}
	return problemFor("internal", "This is a fault of the server. Report it with the requestId.")
}

func with(p models.Problem, member string, value any) models.Problem {
	p.Members = map[string]any{member: value}
	return p
}

// markLocks says on the answer that locks worked without Redis.
func markLocks(c *gin.Context, degraded bool) {
	if degraded {
		middleware.MarkDegraded(c, middleware.DegradedLocks)
	}
}

// problemNames are the names in the table, sorted.
func problemNames() []string { return slices.Sorted(maps.Keys(problemKinds())) }
