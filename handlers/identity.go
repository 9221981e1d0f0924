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
	"gatehouse/services"
)

// refuseFlood refuses an address that is over the anonymous limit before its
// token is looked up, so that guessing tokens costs the database nothing. A
// token that this instance knows is no guess.
func (h *Handlers) refuseFlood(c *gin.Context) {
	token := middleware.TokenFrom(c)
	if token == "" || h.Sessions.Known(token) {
		return
	}
	hit := models.Hit{Policy: h.Anonymous, Key: middleware.ByClientIP(c)}
	decision, denied := h.Limiter.Denied(hit)
	decisions := []models.Decision{decision}
	if !denied {
		var err error
		if decisions, err = h.Limiter.Peek(c.Request.Context(), h.Anonymous.Name, hit); err != nil {
			middleware.MarkDegraded(c, middleware.DegradedRateLimit)
			h.fail(c, err)
			return
		}
	}
	if slices.ContainsFunc(decisions, func(d models.Decision) bool { return !d.Allowed }) {
		middleware.RefuseQuota(c, decisions)
	}
}

// limitRate counts a request against its user, or against its address if it has
// no valid session. When nobody can say which, it is refused anyway.
func (h *Handlers) limitRate() gin.HandlerFunc {
	byUser := middleware.RateLimit(h.Limiter, middleware.Policy{Policy: h.API, Key: middleware.ByUser, Tier: middleware.Role})
	byAddress := middleware.RateLimit(h.Limiter, middleware.Policy{Policy: h.Anonymous, Key: middleware.ByClientIP})
	return func(c *gin.Context) {
		_, signedIn := middleware.SessionFrom(c)
		switch {
		case signedIn:
			byUser(c)
		case middleware.SessionError(c) == nil:
			byAddress(c)
		}
	}
}

// refuseUnknown refuses where nobody could say who asks, before anything else
// waits for the same database.
func (h *Handlers) refuseUnknown(c *gin.Context) {
	if err := middleware.SessionError(c); err != nil {
		h.fail(c, err)
	}
}

// stillAllowed asks again whether the session of a request lives and has the role
// that the request needs.
func (h *Handlers) stillAllowed(c *gin.Context, role string) func(context.Context) error {
	token := middleware.TokenFrom(c)
	return func(ctx context.Context) error {
		session, err := h.Sessions.Get(services.WithRedisBudget(ctx), token)
		switch {
		case errors.Is(err, models.ErrNotFound):
			return errSessionEnded
		case err != nil:
			return err
		case !models.HasRole(session.Roles, role):
			return &requestError{problemFor("forbidden", "Your rights changed while the request waited: this needs the role "+role+".")}
		}
		return nil
	}
}

// whileWaiting is a context for a request that may queue for so long: it ends when
// allowed, asked every second, refuses, and when the server shuts down. Get vouches
// for a session for 2 s after the database went away, so who is refused because
// nobody can say would be refused as a new request, too.
func (h *Handlers) whileWaiting(c *gin.Context, wait time.Duration, allowed func(context.Context) error) (context.Context, func()) {
	if wait <= 0 {
		return c.Request.Context(), func() {}
	}
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
			if err := allowed(ctx); err != nil {
				cancel(err)
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// refreshesItself: a page left open must not keep its session alive.
func refreshesItself(c *gin.Context) bool { return c.FullPath() == lockTableRoute }
