package architecture_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPromises: each line that scripts/mutations.txt breaks is there, and each test that must fail
// then. Whether they fail is what make mutate shows.
func TestPromises(t *testing.T) {
	// go test runs this again only for files that the test itself has read; the other tests here
	// read all of the Go files.
	read(t, "scripts/mutate")
	for line := range strings.Lines(read(t, "scripts/mutations.txt")) {
		if file, ok := strings.CutPrefix(strings.TrimSpace(line), "in "); ok {
			read(t, file)
		}
	}
	if out, err := exec.Command("../../scripts/mutate", "check").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", filepath.FromSlash(name)))
	if err != nil {
		t.Error(err)
	}
	return string(text)
}
