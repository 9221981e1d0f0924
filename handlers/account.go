package handlers

import (
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/templates"
)

const accountRoute = "/account"

// accountPage shows the user's own sessions.
func (h *Handlers) accountPage(c *gin.Context) error {
	session := signedIn(c)
	mine, err := h.Sessions.List(c.Request.Context(), session.User.ID)
	if err != nil {
		return err
	}
	view := templates.Account{Frame: h.frame(c, "Account"), Sessions: shownSessions(mine, session)}
	view.Notices = notices(c)
	if c.Query("password-changed") != "" {
		view.Notices = append(view.Notices, templates.Notice{Text: "Your password is changed. Your other sessions have ended."})
	}
	html, err := h.Pages.Account(view)
	return h.page(c, http.StatusOK, html, err)
}

func shownSessions(all []models.Session, current models.Session) []templates.Session {
	var shown []templates.Session
	for _, s := range all {
		shown = append(shown, templates.Session{
			ID: s.ID, Device: device(s.UserAgent), IP: s.IP, Begun: s.CreatedAt, LastSeen: s.LastSeen, Current: s.Hash == current.Hash,
		})
	}
	return shown
}

func (h *Handlers) endSessionForm(c *gin.Context) error {
	form, err := formValues(c, "id")
	if err != nil {
		return err
	}
	if !isID(form["id"]) {
		return models.Invalid("id", "must be 1 to 64 of A-Z a-z 0-9 _ -")
	}
	switch err = h.Accounts.EndSession(c.Request.Context(), signedIn(c), form["id"], clientOf(c)); {
	case errors.Is(err, models.ErrNotFound):
		return goWith(c, accountRoute, middleware.Flash{Text: "That session had ended already."})
	case err != nil:
		return err
	}
	return goWith(c, accountRoute, middleware.Flash{Text: "The session has ended."})
}

func (h *Handlers) endOthersForm(c *gin.Context) error {
	if err := h.Accounts.EndOtherSessions(c.Request.Context(), signedIn(c), clientOf(c)); err != nil {
		return endedIfNotFound(err)
	}
	return goWith(c, accountRoute, middleware.Flash{Text: "All your other sessions have ended."})
}
