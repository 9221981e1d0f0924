package handlers

import (
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/templates"
)

const passwordRoute = "/password"

func (h *Handlers) passwordForm(c *gin.Context) error {
	return h.showPassword(c, http.StatusOK, templates.Password{})
}

func (h *Handlers) showPassword(c *gin.Context, status int, view templates.Password) error {
	view.Frame = h.frame(c, "Change password")
	if view.Error != "" {
		view.Title = "Error: Change password" // what a screen reader says first
	}
	html, err := h.Pages.Password(view)
	return h.page(c, status, html, err)
}

// changePasswordForm changes the user's password on the page. The browser gets a new cookie,
// and all other sessions of the user end.
func (h *Handlers) changePasswordForm(c *gin.Context) error {
	form, err := formValues(c, "currentPassword", "newPassword")
	if err != nil {
		return err
	}
	session := signedIn(c)
	err = models.ValidatePassword("newPassword", form["newPassword"])
	if err == nil {
		err = h.allowSignIn(c, session.User.Email)
	}
	var token string
	var fresh models.Session
	if err == nil {
		token, fresh, err = h.Accounts.ChangePassword(c.Request.Context(), session, form["currentPassword"], form["newPassword"], clientOf(c))
	}
	var invalid *models.ValidationError
	switch {
	case errors.As(err, &invalid):
		words := map[string]string{"currentPassword": "That is not your current password.", "newPassword": "The new password must have 12 to 128 characters."}
		field := invalid.Errors[0].Field
		return h.showPassword(c, http.StatusUnprocessableEntity, templates.Password{Error: words[field], Field: field})
	case err != nil:
		return endedIfNotFound(err)
	}
	if middleware.FromCookie(c) {
		h.Cookie.SetCookie(c.Writer, token, fresh.ExpiresAt)
	}
	return goTo(c, accountRoute+"?password-changed=1") // a flash in the session that has just ended would be lost
}
