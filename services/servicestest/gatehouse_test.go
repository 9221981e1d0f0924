package servicestest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSourcesOfGatehouse: results of tests that run the program depend on all that it is built
// from, also on what is embedded in it, and on files that are added.
func TestSourcesOfGatehouse(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := sourcesOf(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"go.mod", "main.go", "handlers/locks.go", "services/lock/lua/acquire.lua", "services/store/migrations/sqlite", "templates/page_edit.html", "templates/static/locks.js"} {
		if _, err := os.Stat(filepath.Join(root, file)); err != nil { // this result depends on them, too
			t.Error(err)
		}
		if !slices.Contains(sources, filepath.Join(root, file)) {
			t.Errorf("%s is missing", file)
		}
	}
	if slices.Contains(sources, root) {
		t.Error("results depend on what tests write into the root")
	}
	if i := slices.IndexFunc(sources, func(file string) bool { return strings.HasSuffix(file, "_test.go") }); i >= 0 {
		t.Errorf("%s is no part of the program", sources[i])
	}
}
