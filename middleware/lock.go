package middleware

import (
	"context"
	"errors"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// LockTokenHeader is the header in which a request carries its lock token.
const LockTokenHeader = "X-Lock-Token"

// LockVerifier tells whether a lock token holds its lock; *lock.Tokens does.
type LockVerifier interface {
	// Verify answers what the token was signed for; degraded says that Redis could
	// not be asked. models.ErrLockTokenRequired for an empty token, a
	// *models.NotHeldError for one that does not hold the lock, any other error
	// if nobody can say now.
	Verify(ctx context.Context, resource, userID, token string) (grant models.LockGrant, degraded bool, err error)
}

// LockOptions says which lock RequireLock asks for. Resource must be set.
type LockOptions struct {
	// Resource names what the request is about to change, such as "order:" and the
	// id of its path.
	Resource func(c *gin.Context) string
	// User is whom the token must have been signed for. Nil is the user of the
	// session, "" without one, as SessionFrom finds it.
	User func(c *gin.Context) string
}

type lockKey struct{}

// RequireLock lets a request pass that carries, in X-Lock-Token, the token of the
// lock on its resource, and hands the lock to the handler by LockFrom. Otherwise it
// answers a problem: 428 lock-token-required without a token; 409 lock-not-held,
// with isLocked and holder, for one that is not, or no longer, the holder's; 503
// unavailable with Retry-After when nobody can say. What passed without Redis,
// because the locker may (open), carries X-Degraded: locks.
//
// It looks once, before the handler: the lease may end while that works. Let the
// database refuse what comes too late: hand the lock's fence to store.FenceGuard in
// the transaction that writes.
//
// It panics without locks or a Resource: that is a mistake in the program.
//
// gatehouse's own routes ask in their handlers, because they refuse a wrong body
// and a process that is not there before they look at the token.
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
			MarkDegraded(c, DegradedLocks)
		}
		c.Set(lockKey{}, grant)
	}
}

// LockFrom returns the lock that RequireLock let the request pass with. Its Fence is
// nil if it was granted without Redis.
func LockFrom(c *gin.Context) (lock models.LockGrant, ok bool) {
	held, _ := c.Get(lockKey{})
	lock, ok = held.(models.LockGrant)
	return lock, ok
}

// RefuseLock answers the problem of an error that RequireLock refuses for, or that
// store.FenceGuard answered to the handler. Any error that it does not know is 503
// unavailable.
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
				MarkDegraded(c, DegradedLocks)
			}
		}
		WriteProblem(c, problem)
	default:
		_ = c.Error(err)
		refuseUnavailable(c, "Nobody can say at the moment who holds the lock. Nothing was changed: try again.")
	}
}
