package handlers_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"gatehouse/models"
)

// leaving is the context of a client who leaves as soon as something is done.
type leaving struct {
	context.Context //nolint:containedctx // it is one
	done            func() bool
	leave           context.CancelFunc
}

// Value is called before each call to Redis, and so between two steps of a request.
func (c leaving) Value(key any) any {
	if c.Err() == nil && c.done() {
		c.leave()
	}
	return c.Context.Value(key)
}

// A browser that is closed while a page saves does not keep the process locked.
func TestClientWhoLeavesKeepsNoLock(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.signedIn(t, ann)
	for name, send := range map[string]func(id string) (path string, form url.Values){
		"save and close": func(id string) (string, url.Values) {
			tab := a.begins(t, id)
			tab.fields.Set("title", "Order pens")
			tab.fields.Set("then", "close")
			return "/edit/save", tab.fields
		},
		"restore": func(string) (string, url.Values) { return "/restore", url.Values{"version": {"1"}} },
	} {
		t.Run(name, func(t *testing.T) {
			process := s.process(t, "Order paper", "")
			s.writes(t, ann, process.ID, func(f *models.ProcessFields) { f.Title = "Order ink" })
			path, form := send(process.ID)
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			r := httptest.NewRequest(http.MethodPost, "/processes/"+process.ID+path, strings.NewReader(form.Encode()))
			a.send(r.WithContext(leaving{ctx, func() bool { return s.now(t, process.ID).Version == 3 }, leave}),
				"Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin")
			if ctx.Err() == nil || s.now(t, process.ID).Version != 3 {
				t.Fatal("the client has not left after the save")
			}
			if s.locked(t, "process:"+process.ID) {
				t.Error("the process stays locked")
			}
		})
	}
}
