package middleware

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// LockTokenHeader is the header in which a request carries its lock token.
const LockTokenHeader = "X-Lock-Token"

// LockVerifier checks whether a lock token holds its lock; *lock.Tokens is one.
type LockVerifier interface {
	// Verify returns what the token was signed for. degraded: the lock was not checked in
	// Redis. Errors are models.ErrLockTokenRequired for an empty token and a
	// *models.NotHeldError for one that does not hold the lock; with any other error it is
	// unknown.
	Verify(ctx context.Context, resource, userID, token string) (grant models.LockGrant, degraded bool, err error)
}

// LockOptions says which lock RequireLock requires. Resource must be set.
type LockOptions struct {
	// Resource names what the request is going to change, such as "order:" and the ID in
	// the path.
	Resource func(c *gin.Context) string
	// User is the user for whom the token must have been signed. Nil is the user of
	// SessionFrom, "" without a session.
	User func(c *gin.Context) string
}

type lockKey struct{}

// RequireLock lets a request pass that has the token of the lock on its resource in
// X-Lock-Token; LockFrom then returns the lock. It answers all other requests itself:
//
//   - 428 lock-token-required without a token,
//   - 409 lock-not-held, with isLocked, holder and endedBy, for a token that does not hold the lock,
//   - 503 unavailable, with Retry-After, if it is unknown whether the token does.
//
// Without Redis it does what the locker's OnRedisDown says. A request that passes unchecked
// gets X-Degraded: locks.
//
// RequireLock checks once, before the handler runs; the lease may end while that works. Give
// the lock's fence to fence.Guard in the transaction that writes: the database then
// refuses a late write.
//
// It panics without locks or a Resource: that is a mistake in the program. The routes of
// gatehouse itself verify in their handlers, after they have checked the body and that the
// process exists.
func RequireLock(locks LockVerifier, opt LockOptions) gin.HandlerFunc {
	mustHave("RequireLock", "LockVerifier", locks)
	mustHave("RequireLock", "Resource", opt.Resource)
	user := opt.User
	if user == nil {
		user = func(c *gin.Context) string {
			session, _ := SessionFrom(c)
			return session.User.ID
		}
	}
	return func(c *gin.Context) {
		grant, degraded, err := locks.Verify(c.Request.Context(), opt.Resource(c), user(c), c.GetHeader(LockTokenHeader))
		if err != nil {
			RefuseLock(c, err)
			return
		}
		if degraded {
			SetDegradedHeader(c, DegradedLocks)
		}
		c.Set(lockKey{}, grant)
	}
}

// LockFrom returns the lock with which RequireLock let the request pass. Its Fence is nil if
// it was granted without Redis.
func LockFrom(c *gin.Context) (lock models.LockGrant, ok bool) {
	held, _ := c.Get(lockKey{})
	lock, ok = held.(models.LockGrant)
	return lock, ok
}

// RefuseLock answers the problem for an error of LockVerifier, of fence.Guard, or of a locker
// that did not grant a lock: 423 locked, with the holder, expiresIn and Retry-After in seconds.
// Errors that it does not know are 503 unavailable.
func RefuseLock(c *gin.Context, err error) {
	if problem, ok := LockProblem(c, err); ok {
		WriteProblem(c, problem)
		return
	}
	if errors.Is(err, models.ErrLockTokenRequired) {
		WriteProblem(c, models.NewProblem("lock-token-required", "Take the lock first and send its token as "+LockTokenHeader+"."))
		return
	}
	_ = c.Error(err)
	refuseUnavailable(c, "The holder of the lock is not known at the moment. Nothing was changed: try again.")
}

// LockProblem is the problem for models.ErrNotHeld, lock-not-held, or for a
// *models.NotAcquiredError, locked. It sets the headers of the answer, Retry-After and
// X-Degraded, but writes none: add to the problem what your route offers. ok is false for all
// other errors, and for what is also models.ErrUnavailable.
func LockProblem(c *gin.Context, err error) (problem models.Problem, ok bool) {
	var notHeld *models.NotHeldError
	var refused *models.NotAcquiredError
	switch {
	case errors.Is(err, models.ErrUnavailable):
		return problem, false
	case errors.As(err, &refused):
		status := refused.Status
		detail := "The lock is promised to a waiter, or to its holder, who is going to get it back. Try again in a moment."
		if status.Held {
			detail = status.Holder.Email + " holds the lock. Try again later."
		}
		problem = models.NewProblem("locked", detail).With("expiresIn", wholeSeconds(status.TTL))
		if !refused.TakeOverAt.IsZero() {
			problem = problem.With("takeOverAt", refused.TakeOverAt.UTC())
		}
		// Rounded down: never after the lock can be free.
		c.Header("Retry-After", strconv.FormatInt(int64(status.TTL/time.Second), 10))
		return withHolder(c, problem, status), true
	case errors.As(err, &notHeld):
		problem = notHeldProblem(err).With("isLocked", notHeld.Status.Held)
		if notHeld.EndedBy != nil {
			problem = problem.With("endedBy", notHeld.EndedBy)
		}
		return withHolder(c, problem, notHeld.Status), true
	case errors.Is(err, models.ErrNotHeld):
		return notHeldProblem(err), true
	}
	return problem, false
}

func notHeldProblem(err error) models.Problem {
	detail := "The lock token does not hold the lock, or no longer. Take the lock again and look at what it protects before you write."
	if errors.Is(err, models.ErrOtherFence) {
		detail = "Another grant has the lock by now. See who holds it, and force that lock if you still have to."
	}
	return models.NewProblem("lock-not-held", detail)
}

func withHolder(c *gin.Context, problem models.Problem, status models.LockStatus) models.Problem {
	if status.Degraded {
		SetDegradedHeader(c, DegradedLocks)
	}
	if status.Held {
		problem = problem.With("holder", status.Holder)
	}
	return problem
}
