package handlers

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
)

func badRequest(detail string) error { return models.NewProblem("bad-request", detail) }

var errSessionEnded = models.NewProblem("unauthenticated", "The session ended while the request waited. Sign in again.")

// handle makes a gin handler of one that returns an error, and answers the error. A handler
// that returns nil has answered, or leaves that to a later one.
func (h *Handlers) handle(do func(c *gin.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		if err := do(c); err != nil {
			h.fail(c, err)
		}
	}
}

// fail answers an error. It is the one place that maps the errors of services to problems.
func (h *Handlers) fail(c *gin.Context, err error) {
	var quota *quotaError
	if errors.As(err, &quota) {
		middleware.RefuseQuota(c, quota.decisions)
		return
	}
	problem := problemOf(err)
	var cause models.Problem // why a wait for the lock ended
	if errors.As(err, &cause) {
		problem = cause
	} else if p, ok := middleware.LockProblem(c, err); ok {
		problem = p
		if p.Name == "locked" && p.Members["holder"] != nil {
			problem.Detail = strings.TrimSuffix(p.Detail, ".") + ", or queue with Prefer: wait=30."
		}
	}
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
	h.noteRefusal(c, problem)
	middleware.WriteProblem(c, problem)
}

func problemOf(err error) models.Problem {
	var problem models.Problem
	var invalid *models.ValidationError
	var conflict *models.ConflictError
	var tooMany *models.TooManyLocksError
	var request *models.RequestConflictError
	var draft *models.DraftConflictError
	switch {
	case errors.As(err, &problem):
		return problem
	case errors.As(err, &invalid):
		return models.NewProblem("validation", "Correct the fields named in errors.").With("errors", invalid.Errors)
	case errors.As(err, &conflict) && errors.Is(err, models.ErrPreconditionFailed):
		return models.NewProblem("precondition-failed", "The process is now at version "+etag(conflict.Current.Version)+"; merge your change into current.").With("current", conflict.Current)
	case errors.As(err, &draft):
		return models.NewProblem("precondition-failed", "Your draft was saved later than you say, perhaps from another window; see current.").With("current", draft.Current)
	case errors.As(err, &conflict):
		return models.NewProblem("version-conflict", "Another write came in between; nothing was overwritten. Merge your change into current and lock again.").With("current", conflict.Current)
	case errors.As(err, &request):
		return models.NewProblem("conflict", request.Detail).With("field", request.Field)
	case errors.Is(err, models.ErrUnavailable):
		return models.NewProblem("unavailable", "Try again in a moment.")
	case errors.As(err, &tooMany):
		return models.NewProblem("too-many-locks", "You have "+strconv.Itoa(tooMany.Limit)+" processes locked. Give one back first, or let one end.").With("limit", tooMany.Limit)
	case errors.Is(err, models.ErrLockTokenRequired):
		return models.NewProblem("lock-token-required", "Lock the process first and send the lockToken as X-Lock-Token.")
	case errors.Is(err, models.ErrBadCursor):
		return models.NewProblem("validation", "Correct the fields named in errors.").With("errors", models.Invalid("cursor", "is not one that this list answered").Errors)
	case errors.Is(err, models.ErrInvalidCredentials):
		return models.NewProblem("invalid-credentials", "The e-mail address or the password is wrong.")
	case errors.Is(err, models.ErrNotFound):
		return models.NewProblem("not-found", "There is nothing at this address, or no longer.")
	case errors.Is(err, context.Canceled): // the client has left
		return models.NewProblem("unavailable", "The request was given up.")
	}
	return models.NewProblem("internal", "This is a fault of the server. Report it with the requestId.")
}

// setLocksDegraded says in X-Degraded that locks worked without Redis.
func setLocksDegraded(c *gin.Context, degraded bool) {
	if degraded {
		middleware.SetDegradedHeader(c, middleware.DegradedLocks)
	}
}
