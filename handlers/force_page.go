package handlers

import (
	"context"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/templates"
)

// forceQuestion shows an administrator whose lock it is, and asks for a reason. It is the
// confirmation, with and without JavaScript.
func (h *Handlers) forceQuestion(c *gin.Context) error {
	resource := c.Query("resource")
	if !isResource(resource) {
		return h.noRoute(c)
	}
	return h.askForce(c, http.StatusOK, templates.Force{}, resource)
}

func (h *Handlers) askForce(c *gin.Context, status int, view templates.Force, resource string) error {
	found, err := h.Processes.LockStatuses(c.Request.Context(), resource)
	if err != nil {
		return err
	}
	lock := found[0]
	if !lock.Held {
		return goHomeWith(c, middleware.Flash{Text: resource + " is not locked any more.", Failed: true})
	}
	setLocksDegraded(c, lock.Degraded)
	view.Frame = h.frame(c, "Force a lock")
	view.Lock = shownLock(lock, signedIn(c))
	ctx, cancel := context.WithTimeout(c.Request.Context(), titlesTimeout)
	defer cancel()
	view.Lock.Title = h.titleOf(ctx, resource)
	html, err := h.Pages.Force(view)
	return h.page(c, status, html, err)
}

// forceForm ends the lock that the page showed, and no later one.
func (h *Handlers) forceForm(c *gin.Context) error {
	form, err := formValues(c, "resource", "reason", "fence")
	if err != nil {
		return err
	}
	resource := form["resource"]
	was, err := h.force(c, resource, form["reason"], form["fence"])
	setLocksDegraded(c, was.Degraded)
	var invalid *models.ValidationError
	switch {
	case errors.As(err, &invalid) && len(invalid.Errors) == 1 && invalid.Errors[0].Field == "reason":
		view := templates.Force{Reason: form["reason"], Error: "Say why, in 1 to 200 characters."}
		return h.askForce(c, http.StatusUnprocessableEntity, view, resource)
	case errors.Is(err, models.ErrNotHeld):
		return goHomeWith(c, middleware.Flash{Text: "Nothing was forced: the lock on " + resource + " has another holder by now. See who holds it.", Failed: true})
	case errors.Is(err, models.ErrNotFound):
		return goHomeWith(c, middleware.Flash{Text: resource + " is not locked any more.", Failed: true})
	case err != nil:
		return err
	}
	return goHomeWith(c, middleware.Flash{Text: "The lock of " + was.Holder.Email + " on " + resource + " has ended."})
}
