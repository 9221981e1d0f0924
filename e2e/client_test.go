package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

const demoPassword = "gatehouse-demo"

// client sends requests to an instance.
type client struct {
	app   *app
	email string
	id    string // of the user
	token string // Bearer; "" sends none
}

// anonymous is a client without a session.
func (a *app) anonymous() *client { return &client{app: a} }

// signIn signs a demo user in.
func (a *app) signIn(t testing.TB, email string) *client {
	t.Helper()
	return a.signInWith(t, email, demoPassword)
}

func (a *app) signInWith(t testing.TB, email, password string) *client {
	t.Helper()
	got := a.anonymous().call(t, "POST /auth/login", credentials(email, password)).is(t, 200).
		with(t, "tokenType", "Bearer").with(t, "user.email", email)
	token := got.text(t, "token")
	a.keepSecret(token)
	return &client{app: a, email: email, id: got.text(t, "user.id"), token: token}
}

func credentials(email, password string) map[string]any {
	return map[string]any{"email": email, "password": password}
}

// at is the same session at another instance.
func (c *client) at(a *app) *client {
	other := *c
	other.app = a
	return &other
}

// call sends a request to the API: what is "METHOD path" below /api/v1, body is
// nil, a string to send as it is, or a value to send as JSON, and each header is
// "Name: value". It checks what holds for every answer of the API. It may be
// called from any goroutine.
func (c *client) call(t testing.TB, what string, body any, headers ...string) *answer {
	t.Helper()
	method, path, _ := strings.Cut(what, " ")
	got := c.send(t, method+" /api/v1"+path, body, headers...)
	if got.Status == 0 {
		return got
	}
	noteStatus(what, got.Status)
	if cache := got.Header.Get("Cache-Control"); cache != "no-store" && cache != "private, no-cache" {
		t.Errorf("%s: Cache-Control is %q", what, cache)
	}
	if got.Header.Get("Location") != "" && got.Status/100 == 3 {
		t.Errorf("%s: a redirect to %s", what, got.Header.Get("Location"))
	}
	if got.Status >= 400 {
		got.checkProblem(t)
	}
	return got
}

// send is call for any path of the server.
func (c *client) send(t testing.TB, what string, body any, headers ...string) *answer {
	t.Helper()
	method, path, _ := strings.Cut(what, " ")
	req, err := http.NewRequest(method, c.app.URL+path, reader(t, body))
	if err != nil {
		t.Fatal(err)
	}
	switch body.(type) {
	case nil:
	case url.Values:
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	default:
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	waits := false
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		if req.Header.Set(name, value); value == "" {
			req.Header.Del(name)
		}
		waits = waits || name == "Prefer" && value != "wait=0"
	}
	began := time.Now()
	res, err := c.app.http.Do(req)
	if err != nil {
		t.Errorf("%s: no answer: %v", what, err)
		return &answer{what: what, Header: http.Header{}}
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Errorf("%s: the answer was cut off: %v", what, err)
	}
	got := &answer{what: what, path: req.URL.Path, Status: res.StatusCode, Header: res.Header, Body: raw}
	if !waits {
		c.app.slow.note(what, began)
	}
	if got.Header.Get("X-Request-Id") == "" {
		t.Errorf("%s: no X-Request-Id", what)
	}
	return got
}

func reader(t testing.TB, body any) io.Reader {
	switch body := body.(type) {
	case nil:
		return http.NoBody
	case string:
		return strings.NewReader(body)
	case url.Values:
		return strings.NewReader(body.Encode())
	}
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(raw)
}

// waitFor sends a request that may wait and returns a function that waits for
// its answer.
func (c *client) waitFor(t testing.TB, what string, body any, headers ...string) func() *answer {
	done := make(chan *answer, 1)
	go func() {
		defer close(done) // also when call ends the goroutine with t.Fatal
		done <- c.call(t, what, body, headers...)
	}()
	return func() *answer {
		t.Helper()
		got := <-done
		if got == nil {
			t.Fatalf("%s was not sent", what)
		}
		return got
	}
}

// waitUntilLeaving sends a request that waits; who sent it leaves before the answer. What comes
// out of left is the error of that.
func (c *client) waitUntilLeaving(t *testing.T, what string) (leave func(), left <-chan error) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	method, path, _ := strings.Cut(what, " ")
	req, err := http.NewRequestWithContext(ctx, method, c.app.URL+"/api/v1"+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Prefer", "wait=30")
	done := make(chan error, 1)
	go func() {
		res, err := c.app.http.Do(req)
		if err == nil {
			res.Body.Close()
		}
		done <- err
	}()
	return leave, done
}
