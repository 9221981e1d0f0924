package e2e

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// refusal is a request and what the contract answers to it. who is one of the
// clients of the world, "" for nobody.
type refusal struct {
	who, what string
	body      any
	headers   []string
	status    int
	name      string
	fields    []string // of a validation problem
}

func (r refusal) String() string {
	return fmt.Sprintf("%d %s %s %.40v %.60v", r.status, r.who, r.what, r.body, r.headers)
}

// TestWhichErrorWhen goes through the contract's table of errors.
func TestWhichErrorWhen(t *testing.T) {
	t.Parallel()
	w := &world{app: start(t)}
	w.alice, w.bob = w.app.signIn(t, "alice@example.com"), w.app.signIn(t, "bob@example.com")
	w.admin, w.viewer = w.app.signIn(t, "admin@example.com"), w.app.signIn(t, "viewer@example.com")
	for _, title := range []string{"locked by alice", "free", "next"} {
		w.process = w.alice.call(t, "POST /processes", map[string]any{"title": title}).is(t, 201).text(t, "id")
	}
	locked := "/processes/4"
	held := w.acquire(t, w.alice, "4", nil)
	w.token = held.text(t, "lockToken")
	fill := strings.NewReplacer("LOCKED", locked, "FREE", "/processes/5", "TOKEN", w.token, "ADMIN", w.admin.id)

	clients := map[string]*client{"": w.anonymous(), "alice": w.alice, "bob": w.bob, "admin": w.admin, "viewer": w.viewer}
	for _, row := range slices.Concat(wrongBodies(), wrongFields(), wrongParameters(), wrongOrder(), wrongRoutes(), lockRefusals()) {
		t.Run(row.String(), func(t *testing.T) {
			for i := range row.headers {
				row.headers[i] = fill.Replace(row.headers[i])
			}
			got := clients[row.who].call(t, fill.Replace(row.what), row.body, row.headers...).problem(t, row.status, row.name)
			for _, field := range row.fields {
				if !slices.Contains(got.fields(t), field) {
					t.Errorf("no error on %s: %s", field, got.Body)
				}
			}
			if row.status == 422 && len(got.fields(t)) == 0 {
				t.Errorf("422 without errors: %s", got.Body)
			}
		})
	}
	// What is empty filters nothing.
	w.alice.call(t, "GET /processes?status=&q=&cursor=", nil).is(t, 200)
	w.admin.call(t, "GET /audit?action=&cursor=", nil).is(t, 200)
	// None of it has changed anything.
	for _, id := range []string{"4", "5", "6"} {
		w.alice.call(t, "GET /processes/"+id, nil).is(t, 200).with(t, "version", 1)
	}
	w.alice.call(t, "GET "+locked+"/lock/status", nil).is(t, 200).with(t, "isLocked", true)
	w.alice.call(t, "GET /processes/5/lock/status", nil).is(t, 200).with(t, "isLocked", false)
}

const full = `{"title":"t","status":"draft","description":"d"}`

func wrongBodies() []refusal {
	var rows []refusal
	for _, what := range []string{"POST /processes", "PUT FREE", "PATCH FREE/quick-update", "POST FREE/lock", "POST LOCKED/lock/extend", "POST /auth/password"} {
		for _, body := range []string{"{", `{"ttl":1}{"ttl":2}`, `{"title":}`, "\x00", "{\"title\":\"\xff\"}", `{"title":"t"} x`} {
			rows = append(rows, refusal{who: "alice", what: what, body: body, status: 400, name: "bad-request"})
		}
		for _, body := range []string{"[]", "7", `"text"`, "null"} {
			rows = append(rows, refusal{who: "alice", what: what, body: body, status: 422, name: "validation"})
		}
		rows = append(rows,
			refusal{who: "alice", what: what, body: `{"title":"` + strings.Repeat("x", 1<<20) + `"}`, headers: []string{"Expect: 100-continue"}, status: 413, name: "content-too-large"},
			refusal{who: "alice", what: what, body: full, headers: []string{"Content-Type: text/plain"}, status: 415, name: "unsupported-media-type"},
			refusal{who: "alice", what: what, body: full, headers: []string{"Content-Type: "}, status: 415, name: "unsupported-media-type"},
		)
	}
	for _, what := range []string{"POST /processes", "PUT FREE", "PATCH FREE/quick-update", "POST /auth/password"} {
		rows = append(rows,
			refusal{who: "alice", what: what, body: "", status: 400, name: "bad-request"},
			refusal{who: "alice", what: what, status: 400, name: "bad-request"},
		)
	}
	return append(rows,
		refusal{what: "POST /auth/login", body: "{", status: 400, name: "bad-request"},
		refusal{what: "POST /auth/login", status: 400, name: "bad-request"},
		refusal{what: "POST /auth/login", body: full, headers: []string{"Content-Type: application/xml"}, status: 415, name: "unsupported-media-type"},
		refusal{who: "admin", what: "POST /users", body: "{", status: 400, name: "bad-request"},
		refusal{who: "alice", what: "POST /processes", headers: []string{"Content-Type: text/plain"}, status: 415, name: "unsupported-media-type"},
		// The body itself comes before what it, the path and the query say.
		refusal{who: "alice", what: "PUT /processes/a.b", body: "{", status: 400, name: "bad-request"},
		refusal{who: "alice", what: "PATCH /processes/a.b/quick-update", body: full, headers: []string{"Content-Type: text/plain"}, status: 415, name: "unsupported-media-type"},
		refusal{who: "alice", what: "POST /processes/a.b/lock", body: `{"reason":"` + strings.Repeat("x", 1<<20) + `"}`, headers: []string{"Expect: 100-continue"}, status: 413, name: "content-too-large"},
		refusal{who: "alice", what: "POST /processes?x=1", body: "{", status: 400, name: "bad-request"},
		refusal{who: "alice", what: "POST /processes?x=1", body: full, status: 422, name: "validation", fields: []string{"x"}},
		refusal{who: "alice", what: "PUT /processes/a.b", body: full, status: 422, name: "validation", fields: []string{"id"}},
		refusal{who: "admin", what: "PATCH /users/ADMIN", status: 400, name: "bad-request"},
	)
}

func wrongFields() []refusal {
	invalid := func(who, what, body string, fields ...string) refusal {
		return refusal{who: who, what: what, body: body, status: 422, name: "validation", fields: fields}
	}
	long := strings.Repeat("ä", 201)
	return []refusal{
		invalid("alice", "POST /processes", `{}`, "title"),
		invalid("alice", "POST /processes", `{"title":"t","titel":"t"}`, "titel"),
		invalid("alice", "POST /processes", `{"Title":"t"}`, "Title"),
		invalid("alice", "POST /processes", `{"title":"t","title":"t"}`, "title"),
		invalid("alice", "POST FREE/lock", `{"ttl":60,"\u0074tl":60}`, "ttl"),
		invalid("alice", "POST /processes", `{"title":7}`, "title"),
		invalid("alice", "POST /processes", `{"title":null}`, "title"),
		invalid("alice", "POST /processes", `{"title":""}`, "title"),
		invalid("alice", "POST /processes", `{"title":"`+long+`"}`, "title"),
		invalid("alice", "POST /processes", `{"title":"a\u0000b"}`, "title"),
		invalid("alice", "POST /processes", `{"title":"t","status":"done","description":["d"]}`),
		invalid("alice", "POST /processes", `{"title":"t","status":"Draft"}`, "status"),
		invalid("alice", "POST /processes", `{"title":"","status":"x"}`, "title", "status"),
		invalid("alice", "POST /processes", `{"title":"t","description":"`+strings.Repeat("d", 10001)+`"}`, "description"),
		invalid("alice", "PUT FREE", `{"title":"t"}`, "status", "description"),
		invalid("alice", "PUT FREE", `{"title":"t","status":"draft","description":"d","version":1}`, "version"),
		invalid("alice", "PATCH FREE/quick-update", `{}`),
		invalid("alice", "PATCH FREE/quick-update", `{"status":"x"}`, "status"),
		invalid("alice", "POST FREE/lock", `{"ttl":0}`, "ttl"),
		invalid("alice", "POST FREE/lock", `{"ttl":-5}`, "ttl"),
		invalid("alice", "POST FREE/lock", `{"ttl":3601}`, "ttl"),
		invalid("alice", "POST FREE/lock", `{"ttl":1.5}`, "ttl"),
		invalid("alice", "POST FREE/lock", `{"ttl":"60"}`, "ttl"),
		invalid("alice", "POST FREE/lock", `{"ttl":99999999999999999999}`, "ttl"),
		invalid("alice", "POST FREE/lock", `{"reason":"`+long+`"}`, "reason"),
		invalid("alice", "POST FREE/lock", `{"ttl":60,"wait":5}`, "wait"),
		invalid("alice", "POST LOCKED/lock/extend", `{"ttl":0}`, "ttl"),
		invalid("alice", "POST LOCKED/lock/extend", `{"ttl":3601}`, "ttl"),
		invalid("", "POST /auth/login", `{"email":"alice@example.com"}`, "password"),
		invalid("", "POST /auth/login", `{"email":1,"password":"x"}`, "email"),
		invalid("", "POST /auth/login", `{"email":"a@b.c","password":"x","remember":true}`, "remember"),
		invalid("admin", "POST /users", `{"email":"nobody","password":"short","roles":["king"]}`, "email", "password", "roles"),
		invalid("admin", "POST /users", `{"email":"n@example.com","password":"long enough, surely"}`, "roles"),
		invalid("admin", "POST /users", `{"email":"n@example.com","password":"long enough, surely","roles":[]}`, "roles"),
		invalid("admin", "POST /users", `{"email":"n@example.com","password":"long enough, surely","roles":"admin"}`, "roles"),
		invalid("admin", "PATCH /users/ADMIN", `{}`),
		invalid("admin", "PATCH /users/ADMIN", `{"email":"x@example.com"}`, "email"),
		invalid("admin", "PATCH /users/ADMIN", `{"disabled":"yes"}`, "disabled"),
		invalid("admin", "PATCH /users/ADMIN", `{"password":"short"}`, "password"),
	}
}

func wrongParameters() []refusal {
	invalid := func(who, what, field string, headers ...string) refusal {
		return refusal{who: who, what: what, headers: headers, status: 422, name: "validation", fields: []string{field}}
	}
	rows := []refusal{
		invalid("alice", "GET /processes?status=gone", "status"),
		invalid("alice", "GET /processes?page=2", "page"),
		invalid("alice", "GET /processes?q=a&q=b", "q"),
		invalid("alice", "GET /processes?q=%00", "q"),
		invalid("alice", "GET /processes?q=%ff", "q"),
		invalid("alice", "DELETE /sessions?all=yes", "all"),
		invalid("admin", "GET /audit?action=dance", "action"),
		invalid("admin", "DELETE /locks/process:4?reason=", "reason"),
		invalid("admin", "DELETE /locks/process:4?reason="+url.QueryEscape(strings.Repeat("ö", 201)), "reason"),
		invalid("admin", "DELETE /locks/process:4?reason=x&fence=abc", "fence"),
		invalid("admin", "DELETE /locks/process:4?reason=x&force=1", "force"),
		invalid("alice", "POST FREE/lock", "Idempotency-Key", "Idempotency-Key: two words"),
		invalid("alice", "POST FREE/lock", "Idempotency-Key", "Idempotency-Key: "+strings.Repeat("k", 256)),
		invalid("alice", "GET /processes/"+strings.Repeat("1", 65), "id"),
		invalid("alice", "GET /processes/a%20b", "id"),
		invalid("alice", "GET /processes/4%2Flock", "id"),
		invalid("alice", "GET /processes/%00", "id"),
		invalid("alice", "GET LOCKED?x=1", "x"),
		invalid("admin", "GET /users/a.b", "id"),
		invalid("alice", "DELETE /sessions/a.b", "id"),
	}
	for _, list := range []string{"/processes", "/locks", "/users", "/audit"} {
		for _, limit := range []string{"0", "201", "-1", "x", "1.5", ""} {
			rows = append(rows, invalid("admin", "GET "+list+"?limit="+limit, "limit"))
		}
		for _, cursor := range []string{"x", "%00", "AAAA", "eyJ9", strings.Repeat("A", 3000)} {
			rows = append(rows, invalid("admin", "GET "+list+"?cursor="+cursor, "cursor"))
		}
	}
	return rows
}

// wrongOrder: of several things wrong, the first in the contract's order is told.
func wrongOrder() []refusal {
	return []refusal{
		{what: "PUT /processes/999", body: "{", status: 401, name: "unauthenticated"},
		{what: "GET /users", status: 401, name: "unauthenticated"},
		{what: "GET /auth/session", headers: []string{"Authorization: Basic YTpi"}, status: 401, name: "unauthenticated"},
		{what: "GET /auth/session", headers: []string{"Authorization: Bearer"}, status: 401, name: "unauthenticated"},
		{what: "GET /auth/session", headers: []string{"Authorization: Bearer " + strings.Repeat("x", 5000)}, status: 401, name: "unauthenticated"},
		{who: "viewer", what: "PUT /processes/999", body: "{", status: 403, name: "forbidden"},
		{who: "viewer", what: "POST LOCKED/lock", status: 403, name: "forbidden"},
		{who: "alice", what: "DELETE /locks/process:999", status: 403, name: "forbidden"},
		{who: "alice", what: "PUT /processes/999", body: "{", status: 400, name: "bad-request"},
		{who: "alice", what: "PUT /processes/999", body: `{}`, status: 422, name: "validation"},
		{who: "alice", what: "PUT /processes/999", body: full, status: 404, name: "not-found"},
		{who: "alice", what: "DELETE /processes/999", status: 404, name: "not-found"},
		{who: "alice", what: "PUT LOCKED", body: full, headers: []string{`If-Match: "9"`}, status: 428, name: "lock-token-required"},
		{who: "alice", what: "PUT LOCKED", body: full, headers: []string{`If-Match: "9"`, "X-Lock-Token: x"}, status: 409, name: "lock-not-held"},
		{who: "alice", what: "PUT LOCKED", body: full, headers: []string{`If-Match: "9"`, "X-Lock-Token: TOKEN"}, status: 412, name: "precondition-failed"},
		{who: "bob", what: "POST LOCKED/lock", headers: []string{`If-Match: "9"`}, status: 423, name: "locked"},
	}
}

func wrongRoutes() []refusal {
	rows := []refusal{
		{what: "GET /nothing", status: 404, name: "not-found"},
		{who: "alice", what: "GET /processes/", status: 404, name: "not-found"},
		{who: "alice", what: "GET LOCKED/", status: 404, name: "not-found"},
		{who: "alice", what: "GET /processes/999", status: 404, name: "not-found"},
		{who: "alice", what: "GET /processes/007", status: 404, name: "not-found"},
		{who: "alice", what: "GET /processes/99999999999999999999", status: 404, name: "not-found"},
		{who: "alice", what: "GET /processes/abc", status: 404, name: "not-found"},
		{who: "alice", what: "POST /processes/999/lock", status: 404, name: "not-found"},
		{who: "alice", what: "POST /processes/999/lock/extend", headers: []string{"X-Lock-Token: x"}, status: 404, name: "not-found"},
		{who: "alice", what: "DELETE /sessions/nobody", status: 404, name: "not-found"},
		{who: "admin", what: "GET /users/999", status: 404, name: "not-found"},
		{who: "admin", what: "PATCH /users/999", body: `{"disabled":true}`, status: 404, name: "not-found"},
		{who: "admin", what: "GET /users/999/sessions", status: 404, name: "not-found"},
		{who: "admin", what: "DELETE /users/999/sessions", status: 404, name: "not-found"},
		{who: "admin", what: "DELETE /locks/process:5?reason=x", status: 404, name: "not-found"},
	}
	for _, what := range []string{"PUT /processes", "POST LOCKED", "GET LOCKED/lock", "POST /locks", "GET /auth/login", "DELETE /auth/session", "TRACE /users"} {
		rows = append(rows, refusal{what: what, status: 405, name: "method-not-allowed"}, refusal{who: "alice", what: what, status: 405, name: "method-not-allowed"})
	}
	return rows
}

func lockRefusals() []refusal {
	var rows []refusal
	for _, row := range []struct{ what, body string }{
		{"PUT FREE", full}, {"DELETE FREE", ""}, {"POST FREE/lock/extend", ""}, {"DELETE FREE/lock", ""},
	} {
		var body any
		if row.body != "" {
			body = row.body
		}
		rows = append(rows,
			refusal{who: "alice", what: row.what, body: body, status: 428, name: "lock-token-required"},
			// Forged, and rightly signed for another process.
			refusal{who: "alice", what: row.what, body: body, headers: []string{"X-Lock-Token: forged"}, status: 409, name: "lock-not-held"},
			refusal{who: "alice", what: row.what, body: body, headers: []string{"X-Lock-Token: TOKEN"}, status: 409, name: "lock-not-held"},
		)
	}
	return rows
}
