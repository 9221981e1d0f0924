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

// startAllowed is 2 s for the binary that people run; with the race detector, on
// a machine that runs other tests too, it is this.
const startAllowed = 6 * time.Second

// TestStart measures how soon an instance is ready: new, again on the same
// database, and with nobody where Redis should be.
func TestStart(t *testing.T) {
	t.Parallel()
	database := "DATABASE_URL=" + filepath.Join(t.TempDir(), "kept.db")
	first := start(t, database)
	w := &world{app: first, alice: first.signIn(t, "alice@example.com")}
	made := w.alice.call(t, "POST /processes", map[string]any{"title": "kept"}).is(t, 201).text(t, "id")
	first.Stop()

	second := start(t, database)
	w.alice.at(second).call(t, "GET /processes/"+made, nil).is(t, 200).with(t, "title", "kept") // and still signed in
	second.Stop()

	third := start(t, database, "REDIS_URL=redis://"+servicestest.FreeAddr(t))
	w.alice.at(third).call(t, "GET /auth/session", nil).is(t, 200)
	for what, a := range map[string]*app{"new": first, "again": second, "without Redis": third} {
		t.Logf("start-up, %s: %v", what, a.Took)
		if a.Took > startAllowed {
			t.Errorf("%s: ready after %v", what, a.Took)
		}
	}
}

func TestWelcome(t *testing.T) {
	t.Parallel()
	a := launch(t)
	a.WaitReady()
	all := a.Stdout.String()
	for _, said := range []string{a.URL + "/", a.URL + "/api/v1", a.URL + "/swagger/index.html", "alice@example.com", demoPassword, "NOT SHARED"} {
		if !strings.Contains(all, said) {
			t.Errorf("the welcome does not say %s:\n%s", said, all)
		}
	}
	if _, err := os.Stat(filepath.Join(a.Dir, "gatehouse.db")); err != nil {
		t.Errorf("no database file: %v", err)
	}
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

func TestWrongConfiguration(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		env  []string
		says []string
	}{
		{[]string{"RATE_LIMIT_MAX=lots"}, []string{"RATE_LIMIT_MAX", "lots", "from 1 to 1000000"}},
		{[]string{"RATE_LIMIT_MAX=0"}, []string{"RATE_LIMIT_MAX", "from 1 to 1000000"}},
		{[]string{"RATE_LIMIT_WINDOW=1500ms"}, []string{"RATE_LIMIT_WINDOW", "whole seconds"}},
		{[]string{"RATE_LIMIT_MAX=2000", "RATE_LIMIT_ALGORITHM=sliding-log"}, []string{"RATE_LIMIT_ALGORITHM", "sliding-log", "gcra"}},
		{[]string{"LOCK_ON_REDIS_DOWN=maybe"}, []string{"LOCK_ON_REDIS_DOWN", "maybe", "open or closed"}},
		{[]string{"ADDR=8080"}, []string{"ADDR", "8080", "host:port"}},
		{[]string{"APP_ENV=staging"}, []string{"APP_ENV", "staging", "development or production"}},
		{[]string{"APP_ENV=production", "SECRET_KEY=" + strings.Repeat("k", 32)}, []string{"REDIS_URL"}},
		{[]string{"APP_ENV=production", "REDIS_ENABLED=false"}, []string{"SECRET_KEY"}},
		{[]string{"SECRET_KEY=topsecret"}, []string{"SECRET_KEY", "32"}},
		{[]string{"REDIS_URL=redis://:topsecret@127.0.0.1:6379", "REDIS_HOST=127.0.0.1"}, []string{"REDIS_HOST", "REDIS_URL"}},
		{[]string{"REDIS_URL=http://user:topsecret@127.0.0.1"}, []string{"REDIS_URL", "redis://"}},
		{[]string{"DATABASE_URL=mysql://user:topsecret@127.0.0.1/x"}, []string{"DATABASE_URL", "postgres://"}},
		{[]string{"ADMIN_EMAIL=root@example.com"}, []string{"ADMIN_PASSWORD", "ADMIN_EMAIL"}},
		{[]string{"ADMIN_EMAIL=root@example.com", "ADMIN_PASSWORD=topsecret"}, []string{"ADMIN_PASSWORD", "12 to 128"}},
		{[]string{"TRUSTED_PROXIES=everybody"}, []string{"TRUSTED_PROXIES", "everybody"}},
		{[]string{"SHUTDOWN_TIMEOUT=15"}, []string{"SHUTDOWN_TIMEOUT", "15"}},
	} {
		a := launch(t, row.env...)
		refusesToStart(t, a, row.says...)
		if all := a.Said(); strings.Contains(all, "topsecret") {
			t.Errorf("%v: a secret is shown: %s", row.env, all)
		}
	}
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

// TestDatabaseSilentAtStart: a database that takes the connection and says
// nothing is no reason to hang.
func TestDatabaseSilentAtStart(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	refusesToStart(t, launch(t, "DATABASE_URL=postgres://gatehouse@"+silent.Addr().String()+"/gatehouse?sslmode=disable"), "database")
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
