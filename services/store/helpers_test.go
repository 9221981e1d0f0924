package store_test

import (
	"errors"
	"os"
	"testing"

	"gatehouse/models"
	"gatehouse/services/store"
)

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
