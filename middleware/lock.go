package middleware

import (
	"context"
	"errors"

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
//   - 409 lock-not-held, with isLocked and holder, for a token that does not hold the lock,
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

// RefuseLock answers the problem for an error of LockVerifier or of fence.Guard. Errors
// that it does not know are 503 unavailable.
func RefuseLock(c *gin.Context, err error) {
	switch {
	case errors.Is(err, models.ErrLockTokenRequired):
		WriteProblem(c, models.NewProblem("lock-token-required", "Take the lock first and send its token as "+LockTokenHeader+"."))
	case errors.Is(err, models.ErrNotHeld):
		problem := models.NewProblem("lock-not-held", "The lock token does not hold the lock, or no longer. Take the lock again and look at what it protects before you write.")
		var notHeld *models.NotHeldError
		if errors.As(err, &notHeld) {
			problem = problem.With("isLocked", notHeld.Status.Held)
			if notHeld.Status.Held {
				problem = problem.With("holder", notHeld.Status.Holder)
			}
			if notHeld.Status.Degraded {
				SetDegradedHeader(c, DegradedLocks)
			}
		}
		WriteProblem(c, problem)
	default:
		_ = c.Error(err)
		refuseUnavailable(c, "The holder of the lock is not known at the moment. Nothing was changed: try again.")
	}
}
