package handlers

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/templates"
)

func (h *Handlers) problemList(c *gin.Context) error {
	view := templates.Problems{Frame: h.frame(c, "Problem types")}
	for _, name := range slices.Sorted(maps.Keys(models.ProblemKinds)) {
		kind := models.ProblemKinds[name]
		view.Items = append(view.Items, templates.Problem{Name: name, Title: kind.Title, Status: kind.Status})
	}
	html, err := h.Pages.Problems(view)
	return h.page(c, http.StatusOK, html, err)
}

func (h *Handlers) problemHelp(c *gin.Context) error {
	name := c.Param("name")
	kind, ok := models.ProblemKinds[name]
	if !ok {
		return h.noRoute(c)
	}
	return h.message(c, http.StatusOK, templates.Message{
		Kicker: strconv.Itoa(kind.Status) + " " + name, Heading: kind.Title, Paragraphs: []string{kind.Help},
		Action: "All problem types", Href: "/problems",
	})
}

// noRoute answers 404: a problem under /api, a page elsewhere.
func (h *Handlers) noRoute(c *gin.Context) error { return h.refuseRoute(c, "not-found") }

// noMethod answers 405, with the Allow header that gin has set.
func (h *Handlers) noMethod(c *gin.Context) error { return h.refuseRoute(c, "method-not-allowed") }

func (h *Handlers) refuseRoute(c *gin.Context, name string) error {
	kind := models.ProblemKinds[name]
	if path := c.Request.URL.Path; path == "/api" || strings.HasPrefix(path, "/api/") {
		return models.NewProblem(name, kind.Help)
	}
	c.Abort()
	return h.message(c, kind.Status, templates.Message{
		Kicker: strconv.Itoa(kind.Status), Heading: kind.Title, Paragraphs: []string{kind.Help}, Action: "Go to the start page", Href: "/",
	})
}

// problemText is the text of a problem on a page: the wrong fields, or else what it says there.
func problemText(p models.Problem) string {
	errs, _ := p.Members["errors"].([]models.FieldError)
	if len(errs) == 0 {
		return cmp.Or(p.OnPage, p.Detail)
	}
	wrong := make([]string, len(errs))
	for i, e := range errs {
		wrong[i] = e.Field + " " + e.Message
	}
	return "Not accepted: " + strings.Join(wrong, "; ") + "."
}

// showProblem answers a problem as a page. The script of a page gets it as JSON and shows it
// itself.
func (h *Handlers) showProblem(c *gin.Context, p models.Problem) {
	if isScript(c) {
		if p.Status == http.StatusUnauthorized {
			c.Header("HX-Refresh", "true") // loads the whole page, which is the sign-in form now
		}
		middleware.WriteProblem(c, p)
		return
	}
	if err := h.problemPage(c, p); err != nil {
		h.fail(c, err)
	}
}

func (h *Handlers) problemPage(c *gin.Context, p models.Problem) error {
	if shown, err := h.showUnsaved(c, p); shown {
		return err
	}
	signingIn := c.FullPath() == "/login" && p.Status < http.StatusInternalServerError && p.Status != http.StatusForbidden
	switch {
	case signingIn:
		return h.showSignIn(c, p.Status, templates.SignIn{Error: problemText(p)})
	case p.Status == http.StatusUnauthorized && c.Request.Method == http.MethodGet && middleware.TokenFrom(c) == "" && !c.GetBool(leftOpenKey{}):
		return h.showSignIn(c, p.Status, templates.SignIn{Note: "Sign in to see this page."})
	case p.Status == http.StatusUnauthorized:
		return h.showSignIn(c, p.Status, templates.SignIn{Error: "Your session has ended. Sign in again."})
	}
	view := templates.Message{
		Kicker: strconv.Itoa(p.Status), Heading: p.Title, Paragraphs: []string{problemText(p)}, RequestID: p.RequestID,
		Action: "Go to the start page", Href: "/",
	}
	id, err := pathID(c)
	if err == nil && c.Request.Method == http.MethodPost && strings.HasPrefix(c.FullPath(), processesRoute+"/:id/") && p.Status != http.StatusNotFound {
		view.Action, view.Href = "Back to the process", processPath(id)
	}
	if p.Status == http.StatusServiceUnavailable {
		view.Heading, view.Paragraphs = h.whyUnavailable(c)
		if c.Request.Method == http.MethodGet {
			view.RetryAfter = 5
			view.Action, view.Href = "Try again", c.Request.URL.RequestURI()
		}
	}
	return h.message(c, p.Status, view)
}

// whyUnavailable explains a 503, as far as the cause can be found quickly.
func (h *Handlers) whyUnavailable(c *gin.Context) (heading string, paragraphs []string) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), 250*time.Millisecond)
	defer cancel()
	retry := "Nothing was changed unless you were told so."
	if middleware.TokenFrom(c) != "" {
		retry = "You are not signed out, and nothing was changed unless you were told so."
	}
	if h.draining.Load() {
		return "The server is restarting", []string{retry, "Try again in a moment."}
	}
	switch err := h.Database.Ping(ctx); {
	case errors.Is(err, models.ErrNotWritable):
		return "The database takes no changes", []string{"What is there can be read; nothing can be saved until an administrator has seen to it.", retry}
	case err != nil || middleware.SessionError(c) != nil:
		return "The database cannot be reached", []string{
			"gatehouse keeps processes, users and sessions there, so it can show nothing until the database is back.", retry,
		}
	}
	return "Not available now", []string{"This could not be done at the moment. Try again.", retry}
}
