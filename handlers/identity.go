package handlers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services/redis"
)

// refuseFlood refuses an address that is over the anonymous limit before its
// token is looked up, so that guessing tokens costs the database nothing. A guess
// counts first, or as many as are sent at once would pass; limitRate gives back what
// a good token counted. A token that this instance knows is no guess.
func (h *Handlers) refuseFlood(c *gin.Context) error {
	token := middleware.TokenFrom(c)
	if token == "" || h.Sessions.Known(token) {
		return nil
	}
	hit := models.Hit{Policy: h.Anonymous, Key: middleware.ByClientIP(c), Cost: 1}
	decisions, err := h.Limiter.Take(c.Request.Context(), h.Anonymous.Name, hit)
	if err != nil {
		middleware.MarkDegraded(c, middleware.DegradedRateLimit)
		return err
	}
	if slices.ContainsFunc(decisions, func(d models.Decision) bool { return !d.Allowed }) {
		return &quotaError{decisions}
	}
	c.Set(guessKey{}, decisions)
	return nil
}

// guessKey is where refuseFlood leaves what it counted.
type guessKey struct{}

// limitRate counts a request against its user, or against its address if it has
// no valid session. When nobody can say which, it is refused anyway.
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
		if len(counted) > 0 && (signedIn || middleware.SessionError(c) != nil) { // no guess, or nobody can say
			if err := h.Limiter.Refund(context.WithoutCancel(c.Request.Context()), counted...); err != nil {
				_ = c.Error(err) // it ends with its window
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

// refuseUnknown refuses where nobody could say who asks, before anything else
// waits for the same database.
func refuseUnknown(c *gin.Context) error { return middleware.SessionError(c) }

// stillAllowed asks again whether the session of a request lives and has the role
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

// whileWaiting is whileAllowed for a request that would like to queue for so long. It
// returns how long the request may: not at all if too many wait already, as each holds a
// connection. The wait is only preferred (RFC 7240), and the answer says what was applied.
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

// whileAllowed is a context for a request that stays open: it ends when allowed, asked
// every second, refuses, and when the server shuts down. Get vouches for a session for 2 s
// after the database went away: when allowed refuses because the database cannot be asked,
// a new request of the session would be refused, too.
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
			if err := allowed(h.Database.WithBudget(ctx)); err != nil { // what looks on does not use up what the request has
				cancel(err)
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// refreshesItself: a page left open must not keep its session alive.
func refreshesItself(c *gin.Context) bool { return c.FullPath() == lockTableRoute }
