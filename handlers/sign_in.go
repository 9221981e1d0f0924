package handlers

import (
	"strings"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/templates"
)

// signInForm signs in on the page: the browser gets a cookie and goes to the page that it had asked
// for, or to the dashboard. After a refusal it shows the form again (see problemPage).
func (h *Handlers) signInForm(c *gin.Context) error {
	form, err := formValues(c, "email", "password")
	if err != nil {
		return err
	}
	if form["email"] == "" || form["password"] == "" {
		return models.NewProblem("validation", "Enter your e-mail address and your password.")
	}
	token, session, err := h.signIn(c, form["email"], form["password"])
	if err != nil {
		return err
	}
	h.Cookie.SetCookie(c.Writer, token, session.ExpiresAt)
	return goTo(c, wayBack(c.Request.PostForm.Get("next")))
}

// showSignIn shows the form, with what view says of the attempt before. It leads back to the page
// that was asked for.
func (h *Handlers) showSignIn(c *gin.Context, status int, view templates.SignIn) error {
	view.Frame = h.frame(c, "Sign in")
	if view.Error != "" {
		view.Title = "Error: Sign in" // what a screen reader says first
	}
	next := addressOf(c)
	switch {
	case c.FullPath() == "/login":
		form := c.Request.PostForm // empty if the request was refused before its form was read
		view.Email, next = form.Get("email"), form.Get("next")
	case c.FullPath() == lockTableRoute:
		next = "/" + strings.TrimPrefix(next, lockTableRoute)
	case c.Query("signed-out") != "":
		view.Note, next = "You are signed out.", ""
	}
	if next = wayBack(next); next != "/" { // where it leads anyway
		view.Next = next
	}
	html, err := h.Pages.SignIn(view)
	return h.page(c, status, html, err)
}

// signOutForm ends the session and clears the browser.
func (h *Handlers) signOutForm(c *gin.Context) error {
	if err := middleware.SessionError(c); err != nil {
		return err
	}
	if session, ok := middleware.SessionFrom(c); ok {
		if err := h.Accounts.SignOut(c.Request.Context(), session, clientOf(c)); err != nil {
			return err
		}
	}
	h.clearBrowser(c)
	return goTo(c, "/?signed-out=1")
}

// clearBrowser makes a browser forget the cookie and all that it stored of this site.
func (h *Handlers) clearBrowser(c *gin.Context) {
	h.Cookie.ClearCookie(c.Writer)
	c.Header("Clear-Site-Data", `"cache", "storage"`)
}
