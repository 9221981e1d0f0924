package handlers

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

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
		setLocksDegraded(c, refused.Status.Degraded)
	}
	var notHeld *models.NotHeldError
	if errors.As(err, &notHeld) {
		setLocksDegraded(c, notHeld.Status.Degraded)
	}
	middleware.WriteProblem(c, problem)
}

func problemOf(err error) models.Problem {
	var problem models.Problem
	var invalid *models.ValidationError
	var conflict *models.ConflictError
	var refused *models.NotAcquiredError
	var notHeld *models.NotHeldError
	var tooMany *models.TooManyLocksError
	switch {
	case errors.As(err, &problem):
		return problem
	case errors.As(err, &invalid):
		return models.NewProblem("validation", "Correct the fields named in errors.").With("errors", invalid.Errors)
	case errors.As(err, &conflict) && errors.Is(err, models.ErrPreconditionFailed):
		return models.NewProblem("precondition-failed", "The process is now at version "+etag(conflict.Current.Version)+"; merge your change into current.").With("current", conflict.Current)
	case errors.As(err, &conflict):
		return models.NewProblem("version-conflict", "Another write came in between; nothing was overwritten. Merge your change into current and lock again.").With("current", conflict.Current)
	case errors.Is(err, models.ErrUnavailable):
		return models.NewProblem("unavailable", "Try again in a moment.")
	case errors.As(err, &notHeld):
		detail := "The lock token does not hold the lock, or no longer. Lock the process again."
		if errors.Is(err, models.ErrOtherFence) {
			detail = "Another grant has the lock by now. See who holds it, and force that lock if you still have to."
		}
		p := models.NewProblem("lock-not-held", detail).With("isLocked", notHeld.Status.Held)
		if notHeld.Status.Held {
			p = p.With("holder", notHeld.Status.Holder)
		}
		return p
	case errors.As(err, &tooMany):
		return models.NewProblem("too-many-locks", "You have "+strconv.Itoa(tooMany.Limit)+" processes locked. Give one back first, or let one end.").With("limit", tooMany.Limit)
	case errors.As(err, &refused) && !refused.Status.Held:
		return models.NewProblem("locked", "The lock is promised to a waiter, or to its holder, who is going to get it back. Try again in a moment.").
			With("expiresIn", seconds(refused.Status.TTL))
	case errors.As(err, &refused):
		return models.NewProblem("locked", refused.Status.Holder.Email+" holds the lock. Try again later, or queue with Prefer: wait=30.").
			With("holder", refused.Status.Holder).With("expiresIn", seconds(refused.Status.TTL))
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
