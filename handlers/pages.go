package handlers

import (
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/templates"
)

// registerPages adds the routes that browsers open. Problems of identify and of the handlers
// are shown as pages.
func (h *Handlers) registerPages(r gin.IRouter, identify ...gin.HandlerFunc) {
	r.GET("/static/:name", h.handle(h.staticFile))
	r.HEAD("/static/:name", h.handle(h.staticFile))

	page := r.Group("", append([]gin.HandlerFunc{noStore, noteLeftOpen, middleware.ShowProblems(h.showProblem)}, identify...)...)
	page.GET("/problems", h.handle(h.problemList))
	page.GET("/problems/:name", h.handle(h.problemHelp))
	page.GET("/login", h.handle(goHome))
	page.POST("/login", h.handle(h.signInForm))
	page.POST("/logout", h.handle(h.signOutForm))

	withFlash := page.Group("", h.handle(refuseUnknown), middleware.Sessions(h.Cookie.CookieName(), h.Cookie))
	withFlash.GET("/", h.handle(h.home))

	own := withFlash.Group("", middleware.RequireSession())
	own.GET(lockTableRoute, h.handle(h.lockTable))
	own.GET(accountRoute, h.handle(h.accountPage))
	own.POST("/sessions/end", h.handle(h.endSessionForm))
	own.POST("/sessions/end-others", h.handle(h.endOthersForm))
	own.GET(passwordRoute, h.handle(h.passwordForm))
	own.POST(passwordRoute, h.handle(h.changePasswordForm))

	h.registerProcessPages(own)
	h.registerEditScript(r.Group("", append([]gin.HandlerFunc{noStore}, identify...)...))

	admin := own.Group("", middleware.RequireRole(models.RoleAdmin))
	admin.GET("/locks/force", h.handle(h.forceQuestion))
	admin.POST("/locks/force", h.handle(h.forceForm))
	admin.GET(usersRoute, h.handle(h.usersPage))
	admin.GET("/users/sessions", h.handle(h.userSessionsPage))
	admin.POST("/users/end-sessions", h.handle(h.endUserSessionsForm))
	admin.POST("/users/end-everybody", h.handle(h.endAllSessionsForm))
}

// staticFile answers a file that pages load. The URL in the pages names the version, and under
// it the file never changes.
func (h *Handlers) staticFile(c *gin.Context) error {
	asset, ok := h.Pages.Asset(c.Param("name"))
	if !ok {
		return h.noRoute(c)
	}
	caching := "no-cache"
	if c.Query("v") == asset.Version {
		caching = "public, max-age=31536000, immutable"
	}
	c.Header("Cache-Control", caching)
	c.Header("ETag", "W/"+strconv.Quote(asset.Version)) // weak: it may be sent compressed
	c.Header("Vary", "Accept-Encoding")
	if strings.Contains(c.GetHeader("If-None-Match"), strconv.Quote(asset.Version)) {
		c.Status(http.StatusNotModified)
		return nil
	}
	c.Header("X-Content-Type-Options", "nosniff")
	c.Data(http.StatusOK, asset.Type, asset.Body)
	return nil
}

// page answers a page; html and err are the results of a Pages method.
func (h *Handlers) page(c *gin.Context, status int, html []byte, err error) error {
	if err != nil {
		return err
	}
	c.Header("Cache-Control", "no-store")
	c.Data(status, "text/html; charset=utf-8", html)
	return nil
}

func (h *Handlers) message(c *gin.Context, status int, view templates.Message) error {
	retry := view.RetryAfter
	view.Frame = h.frame(c, view.Heading)
	view.RetryAfter = retry
	html, err := h.Pages.Message(view)
	return h.page(c, status, html, err)
}

// frame is the part of a page around its content, for the user of the request.
func (h *Handlers) frame(c *gin.Context, title string) templates.Frame {
	frame := templates.Frame{Title: title, Path: c.Request.URL.Path, Now: time.Now()}
	session, ok := h.shownSession(c)
	if !ok {
		return frame
	}
	frame.Reload = reloadOf(c)
	frame.User = &templates.User{ID: session.User.ID, Email: session.User.Email, Role: "viewer"}
	switch {
	case models.HasRole(session.Roles, models.RoleAdmin):
		frame.User.Role, frame.User.Admin = "administrator", true
	case models.HasRole(session.Roles, models.RoleEditor):
		frame.User.Role = "editor"
	}
	frame.Ends = session.ExpiresAt
	if session.IdleAt.Before(frame.Ends) {
		frame.Ends = session.IdleAt
	}
	return frame
}

// shownSession is the session to show in the frame, with this request counted as activity. For
// routes without a look-up, such as unknown paths, it looks only in memory.
func (h *Handlers) shownSession(c *gin.Context) (models.Session, bool) {
	session, ok := middleware.SessionFrom(c)
	token := middleware.TokenFrom(c)
	if cookie, err := c.Request.Cookie(h.Cookie.CookieName()); token == "" && err == nil {
		token = cookie.Value
	}
	if !h.Sessions.Warm(token) {
		return session, ok
	}
	if fresh, err := h.Sessions.Get(c.Request.Context(), token); err == nil && fresh.User.ID != "" {
		return *fresh, true
	}
	return session, ok
}

// isScript reports whether a script of a page asks, and not its user's browser.
func isScript(c *gin.Context) bool { return c.GetHeader("Hx-Request") == "true" }

// notices are the messages that were kept for this page, once.
func notices(c *gin.Context) []templates.Notice {
	if isScript(c) { // it looks, and it is not the page that the user goes to
		return nil
	}
	flashes, err := middleware.Flashes(c)
	if err != nil {
		_ = c.Error(err)
	}
	var shown []templates.Notice
	for _, flash := range flashes {
		shown = append(shown, templates.Notice(flash))
	}
	return shown
}

// goHomeWith keeps a message for the start page and sends the browser there.
func goHomeWith(c *gin.Context, flash middleware.Flash) error { return goWith(c, "/", flash) }

func goWith(c *gin.Context, path string, flash middleware.Flash) error {
	if err := middleware.AddFlash(c, flash); err != nil {
		slog.WarnContext(c.Request.Context(), "a message for the next page was lost", "error", err)
	}
	return goTo(c, path)
}

func goHome(c *gin.Context) error { return goTo(c, "/") }

func goTo(c *gin.Context, path string) error {
	c.Redirect(http.StatusSeeOther, path)
	return nil
}
