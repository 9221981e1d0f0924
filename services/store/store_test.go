package store_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

func TestEmptyAndPing(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		check(t, s.Ping(t.Context()))
		if !must(s.Empty(t.Context())) {
			t.Fatal("a new database is not empty")
		}
		newUser(t, s, "a@example.com")
		if must(s.Empty(t.Context())) {
			t.Fatal("a database with a user is empty")
		}
	})
}

func TestOpenAgainKeepsEverything(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		p := must(w.s.CreateProcess(t.Context(), "", models.ProcessFields{Title: "stays", Status: "draft"}))
		if got := must(open(t, w.url).Process(t.Context(), p.ID)); got != p {
			t.Fatalf("got %+v, want %+v", got, p)
		}
	})
}

func TestSettingIsStoredOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		first, second := w.s, w.other
		if got := must(first.Setting(t.Context(), "secret", "one")); got != "one" {
			t.Fatalf("got %q", got)
		}
		if got := must(second.Setting(t.Context(), "secret", "two")); got != "one" {
			t.Fatalf("the second instance got %q, want the first one's", got)
		}
	})
}

// A start that fails says why, first and in words: one line, without a password.
func TestOpenErrorsAreOneClearLine(t *testing.T) {
	dir := t.TempDir()
	file, newer := filepath.Join(dir, "not-a-database.db"), filepath.Join(dir, "newer.db")
	writeFile(t, file, strings.Repeat("this is not a database\n", 100))
	server := servicestest.StartPostgresServer(t)
	server.Do(t, `CREATE ROLE full LOGIN CONNECTION LIMIT 0`, `CREATE ROLE weak LOGIN`, `CREATE DATABASE newer`)
	as := func(user, database string) string {
		return "postgres://" + user + ":s3cret@" + server.Addr + "/" + database
	}
	for _, url := range []string{newer, as("postgres", "newer")} {
		makeNewer(t, url)
	}
	for name, row := range map[string]struct{ url, want string }{
		"unknown scheme":      {"mysql://host/db", `scheme "mysql"`},
		"memory":              {":memory:", `":memory:" is not the path of a file`},
		"file URL":            {"file:x.db", `"file:x.db" is not the path of a file`},
		"empty":               {"", `"" is not the path of a file`},
		"folder missing":      {"/nonexistent/folder/x.db", "/nonexistent/folder/x.db: there is no such folder: "},
		"is a folder":         {dir, dir + ": the file or its folder cannot be written: "},
		"is something":        {file, file + ": it is no SQLite database: "},
		"read-only folder":    {"/sys/x.db", "x.db: the file or its folder cannot be written: "}, // not by root, either
		"newer file":          {newer, newer + ": its tables were made by a newer version"},
		"nobody listens":      {"postgres://someone:s3cret@" + servicestest.FreeAddr(t) + "/db", ": nothing listens there: "},
		"no such host":        {"postgres://someone:s3cret@nowhere.invalid/db", "db on nowhere.invalid: there is no such host: "},
		"wrong parameters":    {"postgres://someone:s3cret@127.0.0.1:notaport/db", "open database: "},
		"no such user":        {as("nobody", "postgres"), ": it refuses this user or password: "},
		"no such database":    {as("postgres", "nothing"), ": there is no such database on this server: "},
		"no right to migrate": {as("weak", "postgres"), ": the user may not create tables in it: "},
		"full":                {as("full", "postgres"), ": it has no connection free: "},
		"newer database":      {as("postgres", "newer"), ": its tables were made by a newer version"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := store.Open(t.Context(), store.Options{URL: row.url, Timeout: 10 * time.Second})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			text := err.Error()
			begins := strings.Contains(text, row.want) && !strings.Contains(text[:strings.Index(text, row.want)], "unavailable")
			if !begins || strings.ContainsAny(text, "\n\t") || strings.Contains(text, "s3cret") {
				t.Fatalf("error is %q, want one line that begins with %q, and no password", text, row.want)
			}
		})
	}
}

// makeNewer opens a database and says that a later migration was made.
func makeNewer(t *testing.T, url string) {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{URL: url, Timeout: 10 * time.Second})
	check(t, err)
	check(t, s.Close())
	behind(t, url, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, TRUE)`)
}

func TestStartIsQuick(t *testing.T) {
	servicestest.MeasureDisk()
	onBoth(t, func(t *testing.T, w world) {
		// What a connection and a query take on this machine now.
		server := time.Duration(0)
		asks := func() {
			began := time.Now()
			behind(t, w.url, `SELECT 1`)
			server = max(server, time.Since(began))
		}
		asks()
		began := time.Now()
		open(t, w.url)
		took := time.Since(began)
		asks()
		if took > 900*time.Millisecond+10*server+servicestest.Slack(began) {
			t.Errorf("opening an existing database took %v, where a query takes %v", took, server)
		}
	})
}

func TestCallerGoneIsUnavailable(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.Process(ctx, "1")
		wantError(t, err, models.ErrUnavailable)
		wantError(t, err, context.Canceled)
		check(t, s.Ping(t.Context()))
	})
}
