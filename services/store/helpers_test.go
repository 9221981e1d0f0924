package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

// onBoth runs a test against each database. url is of a new, empty one.
func onBoth(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "test.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, servicestest.StartPostgres(t)) })
}

// open opens a database with a timeout that a busy test machine keeps.
func open(t *testing.T, url string) *store.Store {
	t.Helper()
	return openWith(t, store.Options{URL: url, Timeout: 20 * time.Second})
}

func openWith(t *testing.T, opts store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// must returns the value of a call that has to work.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// errorOf is the error of a call whose value does not matter.
func errorOf[T any](_ T, err error) error { return err }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

func newUser(t *testing.T, s *store.Store, email string, roles ...string) models.User {
	t.Helper()
	if roles == nil {
		roles = []string{models.RoleEditor}
	}
	user, err := s.CreateUser(t.Context(), email, "hash of "+email, roles)
	check(t, err)
	return user
}

// badIDs are not ids of any row.
var badIDs = []string{"", "0", "-1", "+1", "007", "abc", "1 ", "99999999999999999999", "9223372036854775807", "1\x00", "\xff"}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	check(t, os.WriteFile(path, []byte(text), 0o600))
}

func isUnavailable(err error) bool { return errors.Is(err, models.ErrUnavailable) }
