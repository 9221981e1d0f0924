package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

func fields(title string) map[string]any {
	return map[string]any{"title": title, "status": "active", "description": "as " + title}
}

// lockPath is below the API.
func lockPath(process string) string { return "/processes/" + process + "/lock" }

// acquire locks a process and checks the whole grant.
func (w *world) acquire(t *testing.T, c *client, process string, body any, headers ...string) *answer {
	t.Helper()
	return w.granted(t, c.call(t, "POST "+lockPath(process), body, headers...), process)
}

func (w *world) granted(t *testing.T, got *answer, process string) *answer {
	t.Helper()
	got.is(t, 201).with(t, "process.id", process)
	w.app.keepSecret(got.text(t, "lockToken"))
	w.told(t, got)
	if fence := got.at(t, "fence"); w.degraded != (fence == nil) {
		t.Errorf("%s: degraded is %t, the fence %v", got.what, w.degraded, fence)
	}
	if got.number(t, "processVersion") != got.number(t, "process.version") {
		t.Errorf("not the version of the process: %s", got.Body)
	}
	if left := time.Until(got.moment(t, "expiresAt")); left < -servicestest.Slack(time.Now()) || left > time.Duration(got.number(t, "expiresIn"))*time.Second+time.Second {
		t.Errorf("expiresAt does not fit expiresIn: %s", got.Body)
	}
	return got
}

// told checks that an answer about a lock says whether it was made without Redis.
func (w *world) told(t *testing.T, got *answer) {
	t.Helper()
	got.with(t, "degraded", w.degraded)
	w.toldInHeader(t, got)
}

func (w *world) toldInHeader(t *testing.T, got *answer) {
	t.Helper()
	if got.degraded("locks") != w.degraded {
		t.Errorf("%s: X-Degraded is %q", got.what, got.Header.Get("X-Degraded"))
	}
}

func lock(t *testing.T, w *world) {
	path := lockPath(w.process)
	w.viewer.call(t, "POST "+path, nil).problem(t, 403, "forbidden")
	free := w.alice.call(t, "GET "+path+"/status", nil).is(t, 200).with(t, "isLocked", false).with(t, "ttl", 0).
		with(t, "mine", false).with(t, "waiting", 0).with(t, "holder", absent).with(t, "expiresAt", absent)
	w.told(t, free)

	grant := w.acquire(t, w.alice, w.process, map[string]any{"ttl": 120, "reason": "quarterly review"}).
		with(t, "expiresIn", 120).with(t, "processVersion", 1)
	w.token = grant.text(t, "lockToken")

	for _, c := range []*client{w.alice, w.bob, w.viewer} {
		status := c.call(t, "GET "+path+"/status", nil).is(t, 200).with(t, "isLocked", true).with(t, "mine", c == w.alice).
			with(t, "holder.userId", w.alice.id).with(t, "holder.email", w.alice.email).with(t, "holder.reason", "quarterly review")
		w.told(t, status)
		if ttl := status.number(t, "ttl"); ttl < 100 || ttl > 120 || status.moment(t, "holder.since").After(time.Now()) {
			t.Errorf("status: %s", status.Body)
		}
		status.with(t, "fence", orAbsent(grant.at(t, "fence")))
	}

	// Another tab of the same user is another editor.
	for _, c := range []*client{w.bob, w.alice} {
		refused := c.call(t, "POST "+path, map[string]any{"ttl": 10}).problem(t, 423, "locked").
			with(t, "holder.email", w.alice.email).with(t, "holder.userId", w.alice.id).with(t, "holder.reason", "quarterly review")
		w.toldInHeader(t, refused)
		retry, err := strconv.ParseInt(refused.Header.Get("Retry-After"), 10, 64)
		if left := refused.number(t, "expiresIn"); err != nil || retry > left || left < 100 || left > 120 {
			t.Errorf("Retry-After %q, expiresIn %d of 120", refused.Header.Get("Retry-After"), left)
		}
	}

	list := w.viewer.call(t, "GET /locks", nil).is(t, 200).with(t, "nextCursor", nil)
	w.told(t, list)
	item := list.item(t, "resource", "process:"+w.process)
	if member(item, "holder.email") != w.alice.email || member(item, "reason") != "quarterly review" || fmt.Sprint(member(item, "waiting")) != "0" ||
		fmt.Sprint(member(item, "fence")) != fmt.Sprint(grant.at(t, "fence")) {
		t.Errorf("in the list: %v", item)
	}
	old := w.admin.call(t, "DELETE /locks/process:"+w.process+"?reason=old&fence=1", nil).problem(t, 409, "lock-not-held").
		with(t, "isLocked", true).with(t, "holder.email", w.alice.email)
	if !strings.HasPrefix(old.text(t, "detail"), "Another grant has the lock") {
		t.Errorf("forced by an old fence: %s", old.Body)
	}
}

// orAbsent: a member that a status leaves out where a grant says null.
func orAbsent(value any) any {
	if value == nil {
		return absent
	}
	return value
}

func write(t *testing.T, w *world) {
	put := func(c *client, title string, headers ...string) *answer {
		return c.call(t, "PUT /processes/"+w.process, fields(title), headers...)
	}
	put(w.alice, "no token").problem(t, 428, "lock-token-required")
	put(w.alice, "empty token", "X-Lock-Token:  ").problem(t, 428, "lock-token-required")
	for _, forged := range []string{"forged", w.token + "x", w.token[:len(w.token)-4] + "AAAA"} {
		refused := put(w.alice, "forged", "X-Lock-Token: "+forged).problem(t, 409, "lock-not-held").
			with(t, "isLocked", true).with(t, "holder.email", w.alice.email)
		w.toldInHeader(t, refused)
	}
	put(w.bob, "another's token", "X-Lock-Token: "+w.token).problem(t, 409, "lock-not-held")
	put(w.viewer, "viewer", "X-Lock-Token: "+w.token).problem(t, 403, "forbidden")

	first := put(w.alice, "Mend the fence twice", "X-Lock-Token: "+w.token).is(t, 200).header(t, "ETag", `"2"`).
		with(t, "version", 2).with(t, "title", "Mend the fence twice").with(t, "status", "active").with(t, "updatedBy.id", w.alice.id)
	w.toldInHeader(t, first)
	// The same grant writes again, although the version it was given is over.
	put(w.alice, "Mend it well", "X-Lock-Token: "+w.token).is(t, 200).header(t, "ETag", `"3"`)

	put(w.alice, "stale", "X-Lock-Token: "+w.token, `If-Match: "2"`).problem(t, 412, "precondition-failed").
		with(t, "current.version", 3).with(t, "current.title", "Mend it well")
	put(w.alice, "weak", "X-Lock-Token: "+w.token, `If-Match: W/"3"`).problem(t, 412, "precondition-failed")
	put(w.alice, "Mend it better", "X-Lock-Token: "+w.token, `If-Match: "1", "3"`).is(t, 200).header(t, "ETag", `"4"`)
	put(w.alice, "Mend it best", "X-Lock-Token: "+w.token, "If-Match: *").is(t, 200).header(t, "ETag", `"5"`)
	w.bob.call(t, "GET /processes/"+w.process, nil).is(t, 200).with(t, "version", 5).with(t, "title", "Mend it best")
}

func extend(t *testing.T, w *world) {
	path := lockPath(w.process) + "/extend"
	w.alice.call(t, "POST "+path, nil).problem(t, 428, "lock-token-required")
	w.bob.call(t, "POST "+path, nil, "X-Lock-Token: "+w.token).problem(t, 409, "lock-not-held")

	before := w.alice.call(t, "GET "+lockPath(w.process)+"/status", nil).is(t, 200)
	longer := w.alice.call(t, "POST "+path, map[string]any{"ttl": 900}, "X-Lock-Token: "+w.token).is(t, 200).with(t, "expiresIn", 900)
	w.told(t, longer)
	longer.with(t, "fence", orNil(before.at(t, "fence")))
	shorter := w.alice.call(t, "POST "+path, map[string]any{"ttl": 60}, "X-Lock-Token: "+w.token).is(t, 200).with(t, "expiresIn", 60)
	if !shorter.moment(t, "expiresAt").Before(longer.moment(t, "expiresAt")) {
		t.Error("the time left became longer")
	}
	w.alice.call(t, "POST "+path, nil, "X-Lock-Token: "+w.token).is(t, 200).with(t, "expiresIn", 300)
	status := w.bob.call(t, "GET "+lockPath(w.process)+"/status", nil).is(t, 200).with(t, "isLocked", true)
	if ttl := status.number(t, "ttl"); ttl < 280 || ttl > 300 {
		t.Errorf("ttl %d after extending by 300", ttl)
	}
}

func orNil(value any) any {
	if value == absent {
		return nil
	}
	return value
}

func quickUpdate(t *testing.T, w *world) {
	path := "PATCH /processes/" + w.process + "/quick-update"
	patch := map[string]any{"status": "paused"}
	refused := w.bob.call(t, path, patch, "Prefer: wait=0").problem(t, 423, "locked").
		header(t, "Preference-Applied", "wait=0").with(t, "holder.email", w.alice.email)
	w.toldInHeader(t, refused)
	w.bob.call(t, "GET /processes/"+w.process, nil).is(t, 200).with(t, "version", 5)
	w.viewer.call(t, path, patch).problem(t, 403, "forbidden")
}

func release(t *testing.T, w *world) {
	path := lockPath(w.process)
	w.alice.call(t, "DELETE "+path, nil).problem(t, 428, "lock-token-required")
	w.bob.call(t, "DELETE "+path, nil, "X-Lock-Token: "+w.token).problem(t, 409, "lock-not-held")
	w.toldInHeader(t, w.alice.call(t, "DELETE "+path, nil, "X-Lock-Token: "+w.token).is(t, 204))
	w.bob.call(t, "GET "+path+"/status", nil).is(t, 200).with(t, "isLocked", false).with(t, "ttl", 0)

	// It is over for good.
	for _, what := range []string{"DELETE " + path, "POST " + path + "/extend"} {
		w.alice.call(t, what, nil, "X-Lock-Token: "+w.token).problem(t, 409, "lock-not-held").with(t, "isLocked", false).with(t, "holder", absent)
	}
	w.alice.call(t, "PUT /processes/"+w.process, fields("late"), "X-Lock-Token: "+w.token).problem(t, 409, "lock-not-held")

	quick := "PATCH /processes/" + w.process + "/quick-update"
	updated := w.bob.call(t, quick, map[string]any{"status": "paused"}, "Prefer: wait=0").is(t, 200).header(t, "ETag", `"6"`).
		with(t, "status", "paused").with(t, "title", "Mend it best").with(t, "updatedBy.id", w.bob.id)
	w.toldInHeader(t, updated)
	w.bob.call(t, quick, map[string]any{"title": "stale"}, `If-Match: "5"`).problem(t, 412, "precondition-failed").with(t, "current.version", 6)
	w.bob.call(t, quick, map[string]any{"description": ""}, `If-Match: "6"`).is(t, 200).with(t, "version", 7).with(t, "description", "")
	w.bob.call(t, "GET "+path+"/status", nil).is(t, 200).with(t, "isLocked", false)
}

func repeatAcquire(t *testing.T, w *world) {
	path := lockPath(w.process)
	w.alice.call(t, "POST "+path, nil, `If-Match: "6"`).problem(t, 412, "precondition-failed").with(t, "current.version", 7)
	w.bob.call(t, "GET "+path+"/status", nil).is(t, 200).with(t, "isLocked", false)

	first := w.acquire(t, w.alice, w.process, map[string]any{"ttl": 100}, "Idempotency-Key: k1", `If-Match: "7"`)
	token := first.text(t, "lockToken")
	again := w.acquire(t, w.alice, w.process, map[string]any{"ttl": 100}, "Idempotency-Key: k1").with(t, "lockToken", token).
		with(t, "fence", first.at(t, "fence"))
	if again.number(t, "expiresIn") > 100 {
		t.Errorf("a repeated acquire got more time: %s", again.Body)
	}
	w.alice.call(t, "POST "+path, nil, "Idempotency-Key: k2").problem(t, 423, "locked")
	w.bob.call(t, "POST "+path, nil, "Idempotency-Key: k1").problem(t, 423, "locked")
	w.alice.call(t, "PUT /processes/"+w.process, fields("once"), "X-Lock-Token: "+token).is(t, 200)
	// The grant goes on after a write, and a repeat of the request still answers it.
	w.acquire(t, w.alice, w.process, map[string]any{"ttl": 100}, "Idempotency-Key: k1").with(t, "lockToken", token).with(t, "process.title", "once")
	w.alice.call(t, "DELETE "+path, nil, "X-Lock-Token: "+token).is(t, 204)

	next := w.acquire(t, w.alice, w.process, nil, "Idempotency-Key: k1")
	if next.text(t, "lockToken") == token {
		t.Error("the token of an ended grant was given out again")
	}
	w.alice.call(t, "PUT /processes/"+w.process, fields("old"), "X-Lock-Token: "+token).problem(t, 409, "lock-not-held")
	w.alice.call(t, "DELETE "+path, nil, "X-Lock-Token: "+next.text(t, "lockToken")).is(t, 204)
}

// waiting waits until so many requests queue for the process.
func (w *world) waiting(t *testing.T, c *client, process string, n int64) {
	t.Helper()
	servicestest.Eventually(t, func() bool {
		return c.call(t, "GET "+lockPath(process)+"/status", nil).is(t, 200).number(t, "waiting") == n
	}, fmt.Sprintf("not %d waiting", n))
}

func queue(t *testing.T, w *world) {
	path := lockPath(w.process)
	held := w.acquire(t, w.alice, w.process, nil)
	second := w.bob.waitFor(t, "POST "+path, nil, "Prefer: wait=25")
	w.waiting(t, w.viewer, w.process, 1)
	third := w.alice.waitFor(t, "POST "+path, nil, "Prefer: handling=lenient, wait=99")
	w.waiting(t, w.viewer, w.process, 2)
	item := w.viewer.call(t, "GET /locks", nil).is(t, 200).item(t, "resource", "process:"+w.process)
	if fmt.Sprint(member(item, "waiting")) != "2" {
		t.Errorf("in the list: %v", item)
	}
	w.viewer.call(t, "GET /locks/process:"+w.process, nil).is(t, 200).with(t, "waiting", 2).
		with(t, "queue.0.email", w.bob.email).with(t, "queue.1.userId", w.alice.id)

	// First come, first served, and each grant has a higher fence.
	w.alice.call(t, "DELETE "+path, nil, "X-Lock-Token: "+held.text(t, "lockToken")).is(t, 204)
	toBob := w.granted(t, second(), w.process).header(t, "Preference-Applied", "wait=25")
	w.alice.call(t, "GET "+path+"/status", nil).is(t, 200).with(t, "holder.email", w.bob.email).with(t, "waiting", 1)
	w.bob.call(t, "DELETE "+path, nil, "X-Lock-Token: "+toBob.text(t, "lockToken")).is(t, 204)
	toAlice := w.granted(t, third(), w.process).header(t, "Preference-Applied", "wait=30")
	if !w.degraded && (toBob.number(t, "fence") <= held.number(t, "fence") || toAlice.number(t, "fence") <= toBob.number(t, "fence")) {
		t.Errorf("fences do not grow: %v, %v, %v", held.at(t, "fence"), toBob.at(t, "fence"), toAlice.at(t, "fence"))
	}

	// A quick update waits by itself, and a wait that is over leaves no trace.
	update := w.bob.waitFor(t, "PATCH /processes/"+w.process+"/quick-update", map[string]any{"title": "waited"}, "Prefer: wait=x")
	w.waiting(t, w.viewer, w.process, 1)
	w.alice.call(t, "DELETE "+path, nil, "X-Lock-Token: "+toAlice.text(t, "lockToken")).is(t, 204)
	update().is(t, 200).with(t, "title", "waited").header(t, "Preference-Applied", "")

	held = w.acquire(t, w.alice, w.process, nil)
	w.bob.call(t, "POST "+path, nil, "Prefer: wait=1").problem(t, 423, "locked").with(t, "holder.email", w.alice.email)
	w.waiting(t, w.viewer, w.process, 0)
	w.alice.call(t, "DELETE "+path, nil, "X-Lock-Token: "+held.text(t, "lockToken")).is(t, 204)
	w.alice.call(t, "GET "+path+"/status", nil).is(t, 200).with(t, "isLocked", false)
}

func force(t *testing.T, w *world) {
	held := w.acquire(t, w.bob, w.process, map[string]any{"reason": "lunch"})
	resource := "/locks/process:" + w.process
	w.alice.call(t, "DELETE "+resource+"?reason=mine", nil).problem(t, 403, "forbidden")
	w.admin.call(t, "DELETE "+resource, nil).problem(t, 422, "validation").with(t, "errors.0.field", "reason")
	w.admin.call(t, "DELETE "+resource+"?reason=gone&fence=12345", nil).problem(t, 409, "lock-not-held").
		with(t, "isLocked", true).with(t, "holder.email", w.bob.email)

	query := "?reason=bob+is+at+lunch"
	if !w.degraded {
		query += fmt.Sprintf("&fence=%d", held.number(t, "fence"))
	}
	w.toldInHeader(t, w.admin.call(t, "DELETE "+resource+query, nil, "X-Request-Id: forced-"+w.process).is(t, 204).header(t, "X-Request-Id", "forced-"+w.process))
	w.bob.call(t, "GET "+lockPath(w.process)+"/status", nil).is(t, 200).with(t, "isLocked", false)
	w.bob.call(t, "PUT /processes/"+w.process, fields("forced"), "X-Lock-Token: "+held.text(t, "lockToken")).problem(t, 409, "lock-not-held")
	w.admin.call(t, "DELETE "+resource+query, nil).problem(t, 404, "not-found")
	w.viewer.call(t, "GET "+resource, nil).problem(t, 404, "not-found")
}

func deleteProcess(t *testing.T, w *world) {
	path := "/processes/" + w.process
	w.bob.call(t, "DELETE "+path, nil).problem(t, 428, "lock-token-required")
	held := w.acquire(t, w.alice, w.process, nil)
	token := "X-Lock-Token: " + held.text(t, "lockToken")
	w.bob.call(t, "DELETE "+path, nil, token).problem(t, 409, "lock-not-held")
	w.alice.call(t, "DELETE "+path, nil, token, `If-Match: "1"`).problem(t, 412, "precondition-failed").
		with(t, "current.version", held.number(t, "processVersion"))
	w.toldInHeader(t, w.alice.call(t, "DELETE "+path, nil, token).is(t, 204))

	w.alice.call(t, "GET "+path, nil).problem(t, 404, "not-found")
	w.alice.call(t, "GET "+path+"/lock/status", nil).problem(t, 404, "not-found")
	w.alice.call(t, "PUT "+path, fields("gone"), token).problem(t, 404, "not-found")
	w.alice.call(t, "DELETE "+path, nil, token).problem(t, 404, "not-found")
	if item := w.viewer.call(t, "GET /locks", nil).is(t, 200).item(t, "resource", "process:"+w.process); item != nil {
		t.Errorf("the lock outlives its process: %v", item)
	}
}
