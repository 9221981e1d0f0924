package app

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
)

// No request with a safe method changes anything but when a session was seen last.
func TestSafeMethodsChangeNothing(t *testing.T) {
	a := startApp(t, nil)
	admin := []string{"Authorization", "Bearer " + a.signIn(t, "admin@example.com")}
	if w := a.do(http.MethodPost, "/api/v1/processes/1/lock", "", admin...); w.Code != http.StatusCreated {
		t.Fatal(w.Code)
	}
	var lock struct {
		Items []struct{ Resource, Since string }
	}
	state := func() (all []string) {
		for _, path := range []string{"/processes?limit=200", "/users", "/audit?limit=200"} {
			all = append(all, a.do(http.MethodGet, "/api/v1"+path, "", admin...).Body.String())
		}
		if err := json.Unmarshal(a.do(http.MethodGet, "/api/v1/locks", "", admin...).Body.Bytes(), &lock); err != nil {
			t.Fatal(err)
		}
		for _, l := range lock.Items {
			all = append(all, l.Resource+" "+l.Since)
		}
		sessions := a.do(http.MethodGet, "/api/v1/sessions", "", admin...).Body.String()
		return append(all, strings.Repeat("a session ", strings.Count(sessions, `"createdAt"`)))
	}
	before := state()
	if len(before) != 5 {
		t.Fatalf("%q", before)
	}
	asked, parameter := 0, regexp.MustCompile(`[:*][a-z]+`)
	for _, route := range a.server.Handler.(*gin.Engine).Routes() {
		if route.Method != http.MethodGet && route.Method != http.MethodHead || strings.HasSuffix(route.Path, "/events") {
			continue
		}
		for _, query := range []string{"", "?reason=x&all=true&end=1"} {
			asked++
			if w := a.do(route.Method, parameter.ReplaceAllString(route.Path, "1")+query, `{"title":"x","roles":["viewer"]}`, admin...); w.Code >= 500 {
				t.Errorf("%s %s: %d", route.Method, route.Path, w.Code)
			}
		}
	}
	if after := state(); asked < 30 || !slices.Equal(before, after) {
		t.Errorf("after %d requests:\n%q\nbefore:\n%q", asked, after, before)
	}
}

// Signing out by the API with the page's cookie leaves as little in the browser as
// by the page; other clients are not told.
func TestSignOutClearsTheBrowser(t *testing.T) {
	a := startApp(t, nil)
	for want, headers := range map[string][]string{
		`"cache", "storage"`: {"Cookie", "gatehouse=" + a.signIn(t, "alice@example.com")},
		"":                   {"Authorization", "Bearer " + a.signIn(t, "alice@example.com")},
	} {
		w := a.do(http.MethodPost, "/api/v1/auth/logout", "", headers...)
		if got := w.Header().Get("Clear-Site-Data"); w.Code != http.StatusNoContent || got != want {
			t.Errorf("%d, Clear-Site-Data is %q, want %q", w.Code, got, want)
		}
	}
}
