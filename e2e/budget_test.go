package e2e

import (
	"sync"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// TestSlowDatabase: each call is quick enough by itself, and a request makes at least four.
// They share one DATABASE_TIMEOUT, whatever the request is, and it answers 503.
func TestSlowDatabase(t *testing.T) {
	t.Parallel()
	proxy := servicestest.NewProxy(t, servicestest.StartPostgresServer(t).Addr)
	const timeout = 3 * time.Second // far more than the sign-ins before need on a busy machine
	a := start(t, "DATABASE_URL=postgres://postgres@"+proxy.Addr+"/postgres?sslmode=disable", "DATABASE_TIMEOUT="+timeout.String())
	admin, alice := a.signIn(t, "admin@example.com"), a.signIn(t, "alice@example.com")
	token := "X-Lock-Token: " + alice.call(t, "POST /processes/1/lock", nil).is(t, 201).text(t, "lockToken")

	proxy.SetLatency(timeout / 3)
	var all sync.WaitGroup
	for _, request := range []struct {
		who  *client
		what string
		body any
	}{
		{a.anonymous(), "POST /auth/login", credentials("bob@example.com", demoPassword)},
		{alice, "POST /auth/password", map[string]any{"currentPassword": "not this one", "newPassword": "a new long password"}},
		{alice, "DELETE /sessions", nil},
		{alice, "PUT /processes/1", fields("slow")},
		{alice, "PATCH /processes/3/quick-update", map[string]any{"title": "slow"}},
		{admin, "PATCH /users/4", map[string]any{"password": "a new long password"}},
		{admin, "DELETE /users/4/sessions", nil},
	} {
		all.Go(func() {
			began := time.Now()
			got := request.who.call(t, request.what, request.body, token)
			if took := time.Since(began); got.Status != 503 || took > timeout+servicestest.Slack(began) {
				t.Errorf("%s: %d after %v, want 503 within %v", request.what, got.Status, took, timeout)
			}
		})
	}
	all.Wait()
}
