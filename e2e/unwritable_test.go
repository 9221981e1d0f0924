package e2e

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"gatehouse/services/servicestest"
)

// unwritable: the database answers and takes no writes. Every change answers 503 and
// is not done, readiness knows, one line says why, and what is read is read.
func unwritable(t *testing.T, a *app, alice *client, why string) {
	t.Helper()
	for what, body := range map[string]any{
		"POST /processes": fields("lost"), "PATCH /processes/1/quick-update": map[string]any{"title": "lost"},
		"DELETE /sessions": nil, "POST /auth/refresh": nil,
	} {
		if got := alice.call(t, what, body).problem(t, 503, "unavailable"); got.Header.Get("Retry-After") == "" {
			t.Errorf("%s without Retry-After", what)
		}
	}
	a.anonymous().call(t, "POST /auth/login", credentials("bob@example.com", demoPassword)).problem(t, 503, "unavailable")
	ready := a.anonymous().send(t, "GET /readyz", nil).is(t, 503).with(t, "status", "unavailable").with(t, "components.database.status", "down")
	if ready.Header.Get("Retry-After") == "" {
		t.Error("/readyz without Retry-After")
	}
	a.anonymous().send(t, "GET /healthz", nil).is(t, 200)
	alice.call(t, "GET /processes/1", nil).is(t, 200)
	told := 0
	for line := range strings.Lines(a.Stdout.String()) {
		if strings.Contains(line, "level=ERROR") && strings.Contains(line, "cannot be written") {
			told++
			if !strings.Contains(line, why) {
				t.Errorf("no %q in %s", why, line)
			}
		}
	}
	if told != 1 {
		t.Errorf("%d lines tell of it", told)
	}
}

// writableAgain: everything is as before.
func writableAgain(t *testing.T, a *app, alice *client) {
	t.Helper()
	servicestest.Eventually(t, func() bool { return a.ReadyStatus() == 200 }, "not ready again")
	made := alice.call(t, "POST /processes", fields("kept")).is(t, 201).text(t, "id")
	alice.call(t, "GET /processes/"+made, nil).is(t, 200)
	if !strings.Contains(a.Stdout.String(), "can be written again") {
		t.Error("no line tells that the database is back")
	}
}

func TestSQLiteFileRemoved(t *testing.T) {
	t.Parallel()
	path := demoDatabase(t)
	a := start(t, "DATABASE_URL="+path)
	alice := a.signIn(t, "alice@example.com")
	if err := os.Rename(path, path+".kept"); err != nil {
		t.Fatal(err)
	}
	unwritable(t, a, alice, path)
	if err := os.Rename(path+".kept", path); err != nil {
		t.Fatal(err)
	}
	writableAgain(t, a, alice)
}

func TestPostgresReadOnly(t *testing.T) {
	t.Parallel()
	database := servicestest.StartPostgresServer(t)
	a := start(t, "DATABASE_URL="+database.URL)
	alice := a.signIn(t, "alice@example.com")
	database.SetReadOnly(t, true)
	servicestest.Eventually(t, func() bool { return alice.call(t, "POST /processes", fields("lost")).Status == 503 }, "still writes")
	unwritable(t, a, alice, "read-only")
	database.SetReadOnly(t, false)
	writableAgain(t, a, alice)
}

// A limit on the size of files is as good as a full disk, and can be set for a
// process that runs.
func TestSQLiteDiskFull(t *testing.T) {
	t.Parallel()
	a := start(t)
	alice := a.signIn(t, "alice@example.com")
	limit := func(size string) {
		out, err := exec.Command("prlimit", "--pid", strconv.Itoa(a.Pid()), "--fsize="+size+":").CombinedOutput()
		if err != nil {
			t.Fatalf("prlimit: %v: %s", err, out)
		}
	}
	limit("1")
	alice.call(t, "POST /processes", fields("lost")).problem(t, 503, "unavailable")
	unwritable(t, a, alice, "disk")
	limit("unlimited")
	writableAgain(t, a, alice)
}
