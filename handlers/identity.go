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

// whileWaiting is a context for a request that may queue for so long: it ends when
// the session has ended (asked every second), when nobody can say so any more, or
// when the server shuts down. Get vouches for a session for 2 s after the database
// went away, so who is refused here would be refused as a new request, too.
func (h *Handlers) whileWaiting(c *gin.Context, wait time.Duration) (context.Context, func()) {
	if wait <= 0 {
		return c.Request.Context(), func() {}
	}
	ctx, cancel := context.WithCancelCause(c.Request.Context())
	token := middleware.TokenFrom(c)
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
			_, err := h.Sessions.Get(services.WithRedisBudget(ctx), token)
			if errors.Is(err, models.ErrNotFound) {
				err = errSessionEnded
			}
			if err != nil {
				cancel(err)
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// refreshesItself: a page left open must not keep its session alive.
func refreshesItself(c *gin.Context) bool { return c.FullPath() == lockTableRoute }
