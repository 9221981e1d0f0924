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
	onBoth(t, func(t *testing.T, url string) {
		s := open(t, url)
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
	onBoth(t, func(t *testing.T, url string) {
		p := must(open(t, url).CreateProcess(t.Context(), "", models.ProcessFields{Title: "stays", Status: "draft"}))
		if got := must(open(t, url).Process(t.Context(), p.ID)); got != p {
			t.Fatalf("got %+v, want %+v", got, p)
		}
	})
}

func TestSettingIsStoredOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		first, second := open(t, url), open(t, url)
		if got := must(first.Setting(t.Context(), "secret", "one")); got != "one" {
			t.Fatalf("got %q", got)
		}
		if got := must(second.Setting(t.Context(), "secret", "two")); got != "one" {
			t.Fatalf("the second instance got %q, want the first one's", got)
		}
	})
}

func TestOpenErrorsAreOneClearLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "not-a-database.db")
	writeFile(t, file, strings.Repeat("this is not a database\n", 100))
	for name, row := range map[string]struct{ url, want string }{
		"unknown scheme":   {"mysql://host/db", `"mysql"`},
		"memory":           {":memory:", "not the path of a file"},
		"file URL":         {"file:x.db", "not the path of a file"},
		"empty":            {"", "not the path of a file"},
		"folder missing":   {"/nonexistent/folder/x.db", "/nonexistent/folder/x.db: no such file or directory"},
		"is a folder":      {t.TempDir(), "unable to open database file"},
		"is something":     {file, "not a database"},
		"nobody listens":   {"postgres://someone:s3cret@" + servicestest.FreeAddr(t) + "/db", "connection refused"},
		"wrong parameters": {"postgres://someone:s3cret@127.0.0.1:notaport/db", "open database"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := store.Open(t.Context(), store.Options{URL: row.url})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			text := err.Error()
			if !strings.Contains(text, row.want) || strings.ContainsAny(text, "\n\t") || strings.Contains(text, "s3cret") {
				t.Fatalf("error is %q, want one line with %q and no password", text, row.want)
			}
		})
	}
}

func TestStartIsQuick(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		open(t, url)
		start := time.Now()
		open(t, url)
		if took := time.Since(start); took > 900*time.Millisecond {
			t.Errorf("opening an existing database took %v", took)
		}
	})
}

func TestCallerGoneIsUnavailable(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		s := open(t, url)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.Process(ctx, "1")
		wantError(t, err, models.ErrUnavailable)
		wantError(t, err, context.Canceled)
		check(t, s.Ping(t.Context()))
	})
}
