package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// TestStart: a new instance says where to go and how to sign in, the next one has all that it
// left, and one with no server where Redis should be is ready nearly as soon.
func TestStart(t *testing.T) {
	t.Parallel()
	ready := func(env ...string) (a *app, took time.Duration) {
		t.Helper()
		began := time.Now()
		a = launch(t, env...)
		a.WaitReady()
		return a, time.Since(began)
	}
	first, _ := ready()
	for _, said := range []string{first.URL + "/", first.URL + "/api/v1", first.URL + "/swagger/index.html", "alice@example.com", demoPassword, "NOT SHARED"} {
		if !strings.Contains(first.Stdout.String(), said) {
			t.Errorf("the welcome does not say %s:\n%s", said, &first.Stdout)
		}
	}
	alice := first.signIn(t, "alice@example.com")
	made := alice.call(t, "POST /processes", map[string]any{"title": "kept"}).is(t, 201).text(t, "id")
	first.Stop()

	database := "DATABASE_URL=" + filepath.Join(first.Dir, "gatehouse.db")
	second, usual := ready(database)
	alice.at(second).call(t, "GET /processes/"+made, nil).is(t, 200).with(t, "title", "kept") // and still signed in
	second.Stop()

	began := time.Now()
	third, took := ready(database, "REDIS_URL=redis://"+servicestest.FreeAddr(t))
	if took > 2*usual+time.Second+servicestest.Slack(began) {
		t.Errorf("without Redis ready after %v, with it after %v", took, usual)
	}
	alice.at(third).call(t, "GET /auth/session", nil).is(t, 200)
	third.Stop()
}

// refusesToStart wants exit code 1, within 10 s, and one line about it that has all of
// says.
func refusesToStart(t *testing.T, a *app, says ...string) {
	t.Helper()
	servicestest.Within(t, 10*time.Second, a.HasEnded, "it does not say no")
	if code := a.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	said := a.Stderr.String()
	if strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "gatehouse: ") {
		t.Errorf("not one line: %q", said)
	}
	for _, text := range says {
		if !strings.Contains(said, text) {
			t.Errorf("%q does not say %q", said, text)
		}
	}
}

// TestWrongConfiguration: every variable has a row in internal/config; these tell that the
// program refuses, in which words, and without secrets.
func TestWrongConfiguration(t *testing.T) {
	t.Parallel()
	refusesToStart(t, launch(t, "RATE_LIMIT_MAX=lots"), "RATE_LIMIT_MAX", "lots", "from 1 to 1000000")
	secret := launch(t, "DATABASE_URL=mysql://user:topsecret@127.0.0.1/x")
	secret.keepSecret("topsecret")
	refusesToStart(t, secret, "DATABASE_URL", "postgres://")
}

func TestCannotStart(t *testing.T) {
	t.Parallel()
	noPostgres := launch(t, "DATABASE_URL=postgres://gatehouse:topsecret@"+servicestest.FreeAddr(t)+"/gatehouse")
	noPostgres.keepSecret("topsecret")
	refusesToStart(t, noPostgres, "database", "refused")

	refusesToStart(t, launch(t, "DATABASE_URL=/no/such/directory/gatehouse.db"), "/no/such/directory/gatehouse.db")
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	refusesToStart(t, launch(t, "DATABASE_URL="+garbage), "garbage.db")

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	refusesToStart(t, launch(t, "ADDR="+taken.Addr().String()), "ADDR", taken.Addr().String(), "in use")
}

// TestDotEnv: a .env file is read, and the environment wins over it.
func TestDotEnv(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, ".env"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("REDIS_ENABLED=false\nRATE_LIMIT_MAX=7\nADMIN_EMAIL=root@example.com\nADMIN_PASSWORD='" + password1 + "'\n")
	launchThere := func() *app {
		cmd := exec.Command(binary)
		cmd.Dir = dir
		return launchCommand(t, cmd)
	}
	a := launchThere()
	a.WaitReady()
	root := a.signInWith(t, "root@example.com", password1)
	got := root.call(t, "GET /users", nil).is(t, 200)
	if policy := got.Header.Get("RateLimit-Policy"); policy != `"api";q=1000;w=60` {
		t.Errorf("RateLimit-Policy is %q: the file won over the environment", policy)
	}
	(&world{app: a}).ready(t, "degraded", "disabled")
	a.Stop()

	write("SECRET_KEY='topsecret\n")
	refusesToStart(t, launchThere(), ".env")
}
