package handlers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
)

// What the middleware refuses by itself, for other applications too, is in the
// table: the same name, title and status, and so a help page.
func TestMiddlewareRefusesWithProblemsOfTheTable(t *testing.T) {
	for name, refuse := range map[string]gin.HandlerFunc{
		"unauthenticated": middleware.RequireSession(),
		"cross-origin":    middleware.SameOrigin("https://gatehouse.example.com"),
		"quota-exceeded": func(c *gin.Context) {
			middleware.RefuseQuota(c, []models.Decision{{Policy: models.Policy{Name: "api", Limit: 1}}})
		},
		"forbidden":           func(c *gin.Context) { middleware.RefuseQuota(c, []models.Decision{{Blocked: true}}) },
		"lock-token-required": func(c *gin.Context) { middleware.RefuseLock(c, models.ErrLockTokenRequired) },
		"lock-not-held":       func(c *gin.Context) { middleware.RefuseLock(c, &models.NotHeldError{}) },
		"locked":              func(c *gin.Context) { middleware.RefuseLock(c, &models.NotAcquiredError{}) },
		"unavailable":         func(c *gin.Context) { middleware.RefuseLock(c, models.ErrUnavailable) },
	} {
		c, w := requestWith(http.MethodPost, "")
		c.Request.Header.Set("Sec-Fetch-Site", "cross-site")
		refuse(c)
		var got struct{ Type, Title string }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		kind, ok := models.ProblemKinds[name]
		if !ok || got.Type != "/problems/"+name || got.Title != kind.Title || w.Code != kind.Status {
			t.Errorf("%s: %d %+v, the table says %+v", name, w.Code, got, kind)
		}
	}
}

// models.NewProblem panics on a name that is not in the table: none is misspelt.
func TestEveryProblemIsInTheTable(t *testing.T) {
	use, uses := regexp.MustCompile(`NewProblem\("([^"]*)"`), 0
	for _, folder := range []string{".", "../middleware"} {
		files, err := filepath.Glob(folder + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range use.FindAllStringSubmatch(string(source), -1) {
				uses++
				if _, ok := models.ProblemKinds[name[1]]; !ok {
					t.Errorf("%s: no problem %q in the table", file, name[1])
				}
			}
		}
	}
	if uses < 30 {
		t.Errorf("only %d uses are found", uses)
	}
}

func TestEveryProblemHasAHelpText(t *testing.T) {
	for name, kind := range models.ProblemKinds {
		if kind.Title == "" || kind.Help == "" || http.StatusText(kind.Status) == "" {
			t.Errorf("%s: %+v", name, kind)
		}
	}
}

// What the client gave up is no fault of the server, wherever it was then.
func TestProblemOfWhatWasGivenUp(t *testing.T) {
	for _, err := range []error{
		fmt.Errorf("acquire process:1: %w: %w", models.ErrNotAcquired, context.Canceled),
		fmt.Errorf("read process 1: %w: %w", models.ErrUnavailable, context.Canceled),
	} {
		if p := problemOf(err); p.Status != http.StatusServiceUnavailable || p.Name != "unavailable" {
			t.Errorf("%v: %d %s", err, p.Status, p.Name)
		}
	}
	if p := problemOf(fmt.Errorf("acquire process:1: %w", models.ErrNotAcquired)); p.Status != http.StatusInternalServerError {
		t.Errorf("an unknown error: %d", p.Status)
	}
}
