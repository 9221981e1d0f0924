package servicestest

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// Copies returns a function that gives each test a SQLite file of its own, with what prepare wrote
// into one: that runs once, at the first call. To make the tables takes longer than most tests.
// prepare closes the file.
func Copies(prepare func(path string) error) func(t testing.TB) (path string) {
	first := sync.OnceValues(func() ([]byte, error) {
		folder, err := os.MkdirTemp("", "copies-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(folder)
		path := filepath.Join(folder, "first.db")
		if err := prepare(path); err != nil {
			return nil, err
		}
		return os.ReadFile(path)
	})
	return func(t testing.TB) (path string) {
		t.Helper()
		content, err := first()
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(t.TempDir(), "test.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
}
