package handlers

import (
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/templates"
)

const (
	usersRoute   = "/users"
	usersPerPage = 50
)

// usersPage shows an administrator all users with the number of their sessions.
func (h *Handlers) usersPage(c *gin.Context) error {
	ctx, cursor := c.Request.Context(), c.Query("cursor")
	users, err := h.Accounts.Users(ctx, models.Page{Limit: usersPerPage, Cursor: cursor})
	if err != nil {
		return err
	}
	me := signedIn(c).User.ID
	view := templates.Users{Frame: h.frame(c, "Users")}
	view.Notices = notices(c)
	var ids []string
	for _, user := range users.Items {
		ids = append(ids, user.ID)
	}
	counts, err := h.Accounts.CountSessions(ctx, ids...)
	if err != nil {
		return err
	}
	for _, user := range users.Items {
		view.Users = append(view.Users, templates.UserRow{
			ID: user.ID, Email: user.Email, Roles: strings.Join(user.Roles, ", "), Disabled: user.Disabled, Me: user.ID == me, Sessions: counts[user.ID],
		})
	}
	if cursor != "" {
		view.First = usersRoute
	}
	if users.NextCursor != nil {
		view.Next = link(usersRoute, "cursor", *users.NextCursor)
	}
	html, err := h.Pages.Users(view)
	return h.page(c, http.StatusOK, html, err)
}

// userSessionsPage shows an administrator where a user is signed in.
func (h *Handlers) userSessionsPage(c *gin.Context) error {
	user, err := h.Accounts.User(c.Request.Context(), c.Query("id"))
	if err != nil {
		return err
	}
	all, err := h.Sessions.List(c.Request.Context(), user.ID)
	if err != nil {
		return err
	}
	session := signedIn(c)
	view := templates.UserSessions{
		Frame: h.frame(c, "Sessions of "+user.Email), ID: user.ID, Email: user.Email, Me: user.ID == session.User.ID, Sessions: shownSessions(all, session),
	}
	html, err := h.Pages.UserSessions(view)
	return h.page(c, http.StatusOK, html, err)
}

func (h *Handlers) endUserSessionsForm(c *gin.Context) error {
	form, err := formValues(c, "id")
	if err != nil {
		return err
	}
	user, err := h.Accounts.User(c.Request.Context(), form["id"])
	if err != nil {
		return err
	}
	if err := h.Accounts.EndUserSessions(c.Request.Context(), signedIn(c).User.Email, user.ID, clientOf(c)); err != nil {
		return err
	}
	return goWith(c, usersRoute, middleware.Flash{Text: "All sessions of " + user.Email + " have ended."})
}

func (h *Handlers) endAllSessionsForm(c *gin.Context) error {
	if err := h.Accounts.EndAllSessions(c.Request.Context(), signedIn(c), clientOf(c)); err != nil {
		return endedIfNotFound(err)
	}
	return goWith(c, usersRoute, middleware.Flash{Text: "All users' sessions but this one have ended."})
}
