package handlers

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/templates"
)

// signInForm signs in on the page: a cookie, and the dashboard. A refusal shows
// the form again (see showProblem).
func (h *Handlers) signInForm(c *gin.Context) {
	form, err := formValues(c, "email", "password")
	if err != nil {
		h.fail(c, err)
		return
	}
	if form["email"] == "" || form["password"] == "" {
		h.fail(c, &requestError{models.Problem{
			Name: "validation", Title: "Invalid input", Status: http.StatusUnprocessableEntity, Detail: "Enter your e-mail address and your password.",
		}})
		return
	}
	token, session, err := h.signIn(c, form["email"], form["password"])
	if err != nil {
		h.fail(c, err)
		return
	}
	h.Cookie.SetCookie(c.Writer, token, session.ExpiresAt)
	goHome(c)
}

func (h *Handlers) showSignIn(c *gin.Context, status int, problem string) {
	view := templates.SignIn{Frame: h.frame(c, "Sign in"), Error: problem}
	view.Email = c.Request.PostForm.Get("email") // if the form was read: what is refused before is not
	if problem != "" {
		view.Title = "Error: Sign in" // what a screen reader says first
	}
	if c.Query("signed-out") != "" {
		view.Note = "You are signed out."
	}
	html, err := h.Pages.SignIn(view)
	h.page(c, status, html, err)
}

// signOutForm ends the session and makes the browser forget what it kept of it.
func (h *Handlers) signOutForm(c *gin.Context) {
	if err := middleware.SessionError(c); err != nil {
		h.fail(c, err)
		return
	}
	if session, ok := middleware.SessionFrom(c); ok {
		if err := h.Accounts.SignOut(c.Request.Context(), session, clientOf(c)); err != nil {
			h.fail(c, err)
			return
		}
	}
	h.clearBrowser(c)
	c.Redirect(http.StatusSeeOther, "/?signed-out=1")
}

// clearBrowser makes a browser forget the cookie and what else it kept.
func (h *Handlers) clearBrowser(c *gin.Context) {
	h.Cookie.ClearCookie(c.Writer)
	c.Header("Clear-Site-Data", `"cache", "storage"`)
}
