package middleware_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
)

// sessionApp has one open route and one for each thing that can be required.
func sessionApp(sessions middleware.SessionReader, options ...middleware.LookUpOption) *gin.Engine {
	gin.SetMode(gin.TestMode)
	app := gin.New()
	app.Use(middleware.LoadSession(sessions, "gatehouse", options...))
	whoami := func(c *gin.Context) {
		s, ok := middleware.SessionFrom(c)
		c.JSON(http.StatusOK, gin.H{"user": s.User.ID, "signedIn": ok, "cookie": middleware.FromCookie(c), "token": middleware.TokenFrom(c)})
	}
	app.GET("/open", whoami)
	app.GET("/session", middleware.RequireSession(), whoami)
	app.GET("/editor", middleware.RequireRole(models.RoleEditor), whoami)
	return app
}

func ask(app http.Handler, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	app.ServeHTTP(w, r)
	return w
}

func TestSessionIsFoundByBearerOrCookie(t *testing.T) {
	fake := newFakeSessions()
	app := sessionApp(fake)
	good := fake.signIn(models.RoleViewer)
	for _, test := range []struct {
		name    string
		headers []string
		want    int
		user    string
	}{
		{"bearer", []string{"Authorization", "Bearer " + good}, 200, `"user":"7"`},
		{"scheme in any case", []string{"Authorization", "bEARER  " + good}, 200, `"cookie":false`},
		{"cookie", []string{"Cookie", "gatehouse=" + good}, 200, `"cookie":true`},
		{"bearer wins", []string{"Authorization", "Bearer " + good, "Cookie", "gatehouse=bad"}, 200, `"cookie":false`},
		{"a bad bearer hides the cookie", []string{"Authorization", "Bearer bad", "Cookie", "gatehouse=" + good}, 401, ""},
		{"a bad bearer after a tab hides the cookie", []string{"Authorization", "Bearer\tbad", "Cookie", "gatehouse=" + good}, 401, ""},
		{"an empty bearer hides the cookie", []string{"Authorization", "Bearer", "Cookie", "gatehouse=" + good}, 401, ""},
		{"other schemes are ignored", []string{"Authorization", "Basic YTpi", "Cookie", "gatehouse=" + good}, 200, `"cookie":true`},
		{"a bearer after another scheme", []string{"Authorization", "Basic YTpi", "Authorization", "Bearer bad", "Cookie", "gatehouse=" + good}, 401, ""},
		{"not a scheme", []string{"Authorization", "Bearer" + good}, 401, ""},
		{"another cookie", []string{"Cookie", "other=" + good}, 401, ""},
		{"nothing", nil, 401, ""},
	} {
		w := ask(app, "/session", test.headers...)
		if w.Code != test.want || !contains(w, test.user) {
			t.Errorf("%s: %d %s", test.name, w.Code, w.Body)
		}
		if w.Code == 401 && (w.Header().Get("WWW-Authenticate") != "Bearer" || !contains(w, `"/problems/unauthenticated"`)) {
			t.Errorf("%s: %v %s", test.name, w.Header(), w.Body)
		}
		if open := ask(app, "/open", test.headers...); open.Code != 200 {
			t.Errorf("%s: the open route answers %d", test.name, open.Code)
		}
	}
}

func TestSessionRoles(t *testing.T) {
	fake := newFakeSessions()
	app := sessionApp(fake)
	for role, want := range map[string]int{models.RoleViewer: 403, models.RoleEditor: 200, models.RoleAdmin: 200, "": 403} {
		w := ask(app, "/editor", "Authorization", "Bearer "+fake.signIn(role))
		if w.Code != want || want == 403 && !contains(w, `"/problems/forbidden"`) {
			t.Errorf("role %q: %d %s", role, w.Code, w.Body)
		}
	}
	if w := ask(app, "/editor"); w.Code != 401 {
		t.Errorf("no session: %d", w.Code)
	}
}

// A failure is never a sign-out and never a way in.
func TestSessionThatCannotBeLookedUp(t *testing.T) {
	fake := newFakeSessions()
	app := sessionApp(fake)
	good := fake.signIn(models.RoleAdmin)
	fake.gone, fake.degraded = true, true
	for _, path := range []string{"/session", "/editor"} {
		w := ask(app, path, "Authorization", "Bearer "+good)
		if w.Code != 503 || w.Header().Get("Retry-After") == "" || !contains(w, `"/problems/unavailable"`) || w.Header().Get("X-Degraded") != "sessions" {
			t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
	}
	if w := ask(app, "/session"); w.Code != 401 || w.Header().Get("X-Degraded") != "" {
		t.Errorf("without a token: %d %v", w.Code, w.Header())
	}
	if w := ask(app, "/open", "Authorization", "Bearer "+good); w.Code != 200 || !contains(w, `"signedIn":false`) {
		t.Errorf("open route: %d %s", w.Code, w.Body)
	}
}

func TestSessionWithoutAUserIsNotSignedIn(t *testing.T) {
	fake := newFakeSessions()
	token, _, _ := fake.Create(t.Context(), models.Session{})
	if w := ask(sessionApp(fake), "/session", "Cookie", "gatehouse="+token); w.Code != 401 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestSessionActivity(t *testing.T) {
	fake := newFakeSessions()
	app := sessionApp(fake, middleware.IgnoreActivity(func(c *gin.Context) bool { return c.GetHeader("X-Refresh") != "" }))
	good := fake.signIn(models.RoleViewer)
	ask(app, "/open", "Authorization", "Bearer "+good, "X-Refresh", "1")
	ask(app, "/open", "Authorization", "Bearer bad")
	if fake.seen != 0 {
		t.Errorf("seen %d times, want 0", fake.seen)
	}
	ask(app, "/open", "Authorization", "Bearer "+good)
	if fake.seen != 1 {
		t.Errorf("seen %d times, want 1", fake.seen)
	}
}

// What stands between FindToken and LookUp can refuse before the look-up.
func TestSessionCheckBeforeTheLookUp(t *testing.T) {
	fake := newFakeSessions()
	good := fake.signIn(models.RoleViewer)
	gin.SetMode(gin.TestMode)
	app := gin.New()
	app.Use(middleware.FindToken("gatehouse"), func(c *gin.Context) {
		if middleware.TokenFrom(c) == good {
			c.AbortWithStatus(http.StatusTooManyRequests)
		}
	}, middleware.LookUp(fake))
	app.GET("/", func(c *gin.Context) {})
	if w := ask(app, "/", "Authorization", "Bearer "+good); w.Code != 429 || fake.looked != 0 {
		t.Errorf("%d, looked up %d times", w.Code, fake.looked)
	}
}

func TestRequireSessionWithoutLookUpRefuses(t *testing.T) {
	gin.SetMode(gin.TestMode)
	app := gin.New()
	app.GET("/", middleware.RequireSession(), func(c *gin.Context) { c.Status(200) })
	if w := ask(app, "/", "Authorization", "Bearer x"); w.Code != 401 {
		t.Errorf("%d", w.Code)
	}
}

func TestSessionTokenInTheURLIsIgnored(t *testing.T) {
	fake := newFakeSessions()
	good := fake.signIn(models.RoleViewer)
	for _, query := range []string{"token=", "access_token=", "gatehouse=", "session=", "Authorization=Bearer%20"} {
		if w := ask(sessionApp(fake), "/session?"+query+good); w.Code != 401 {
			t.Errorf("%s: %d", query, w.Code)
		}
	}
}
