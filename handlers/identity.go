package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services/redis"
)

// refuseFlood refuses an address that is over the anonymous limit before its token is looked
// up: guessed tokens cost the database nothing. It counts an unknown token at once, or many
// guesses sent together would pass. limitRate gives back what a valid token has counted. A
// token in the memory of this instance is not counted.
func (h *Handlers) refuseFlood(c *gin.Context) error {
	token := middleware.TokenFrom(c)
	if token == "" || h.Sessions.Known(token) {
		return nil
	}
	hit := models.Hit{Policy: h.Anonymous, Key: middleware.ByClientIP(c), Cost: 1}
	decisions, err := h.Limiter.Take(c.Request.Context(), h.Anonymous.Name, hit)
	if err != nil {
		middleware.SetDegradedHeader(c, middleware.DegradedRateLimit)
		return err
	}
	if slices.ContainsFunc(decisions, func(d models.Decision) bool { return !d.Allowed }) {
		return &quotaError{decisions}
	}
	c.Set(guessKey{}, decisions)
	return nil
}

// guessKey is where refuseFlood keeps its decisions for limitRate.
type guessKey struct{}

// limitRate counts a request for its user, or for its address if it has no valid session. If
// the session is unknown it counts nothing: the request is refused later.
func (h *Handlers) limitRate() gin.HandlerFunc {
	user := middleware.PolicyOf(h.API)
	user.Key, user.Tier = middleware.ByUser, middleware.Role
	byUser, byAddress := middleware.RateLimit(h.Limiter, user), middleware.RateLimit(h.Limiter, middleware.PolicyOf(h.Anonymous))
	return func(c *gin.Context) {
		var counted []models.Decision
		if guess, ok := c.Get(guessKey{}); ok {
			counted = guess.([]models.Decision)
		}
		_, signedIn := middleware.SessionFrom(c)
		if len(counted) > 0 && (signedIn || middleware.SessionError(c) != nil) { // not a wrong guess, or unknown
			if err := h.Limiter.Refund(context.WithoutCancel(c.Request.Context()), counted...); err != nil {
				_ = c.Error(err) // it stays counted until its window has passed
			}
		}
		switch {
		case signedIn:
			byUser(c)
		case middleware.SessionError(c) != nil:
		case len(counted) > 0:
			middleware.WriteDecisions(c, counted)
		default:
			byAddress(c)
		}
	}
}

// refuseUnknown refuses a request whose session could not be looked up, before other handlers
// wait for the same database.
func refuseUnknown(c *gin.Context) error { return middleware.SessionError(c) }

// stillAllowed returns a check whether the session of a request still lives and has the role
// that the request needs.
func (h *Handlers) stillAllowed(c *gin.Context, role string) func(context.Context) error {
	token := middleware.TokenFrom(c)
	return func(ctx context.Context) error {
		session, err := h.Sessions.Get(redis.WithBudget(ctx), token)
		switch {
		case errors.Is(err, models.ErrNotFound):
			return errSessionEnded
		case err != nil:
			return err
		case !models.HasRole(session.Roles, role):
			return models.NewProblem("forbidden", "Your rights changed while the request waited: this needs the role "+role+".")
		}
		return nil
	}
}

// whileWaiting is whileAllowed for a request that wants to queue for wait. It returns how long
// the request may wait: not at all if too many requests wait already, because each holds a
// connection. A wait is a preference (RFC 7240), and the answer names the applied one.
func (h *Handlers) whileWaiting(c *gin.Context, wait time.Duration, allowed func(context.Context) error) (context.Context, time.Duration, func()) {
	if wait <= 0 {
		return c.Request.Context(), 0, func() {}
	}
	giveBack, reached := h.waits.take(signedIn(c).User.ID)
	if reached > 0 {
		c.Writer.Header().Del(preferenceApplied)
		return c.Request.Context(), 0, func() {}
	}
	ctx, stop := h.whileAllowed(c, allowed)
	return ctx, wait, func() {
		stop()
		giveBack()
	}
}

// whileAllowed returns a context for a request that stays open. It ends when allowed, called
// every second, returns an error, and when the server shuts down. Sessions stay valid for 2 s
// after the database went away; after that, allowed refuses just as it refuses a new request.
func (h *Handlers) whileAllowed(c *gin.Context, allowed func(context.Context) error) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(c.Request.Context())
	go func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-h.drain:
				cancel(fmt.Errorf("shutting down: %w", models.ErrUnavailable))
				return
			case <-ticker.C:
			}
			if err := allowed(h.Database.WithBudget(ctx)); err != nil { // a budget of its own, not the request's
				cancel(err)
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// refreshesItself reports requests of a page that is left open: they must not keep a session alive.
func refreshesItself(c *gin.Context) bool {
	switch {
	case c.Request.Method != http.MethodGet:
		return false
	case c.GetBool(leftOpenKey{}):
		return true
	case c.FullPath() == lockEventsRoute:
		return middleware.FromCookie(c)
	case c.FullPath() == processesRoute+"/:id": // without JavaScript, while who asked waits for an answer
		return c.Query("request") != ""
	}
	return c.FullPath() == lockTableRoute || c.FullPath() == editStateRoute || isScript(c)
}
