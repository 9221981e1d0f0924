package servicestest

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSourcesOfGatehouse: results of tests that run the program depend on all that it is built from,
// also on what is embedded in it.
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
	for _, file := range []string{"go.mod", "main.go", "handlers/locks.go", "services/lock/lua/acquire.lua", "services/store/migrations/sqlite/00001_init.sql", "templates/page_edit.html", "templates/static/locks.js"} {
		if !slices.Contains(sources, filepath.Join(root, file)) {
			t.Errorf("%s is missing", file)
		}
	}
	if i := slices.IndexFunc(sources, func(file string) bool { return strings.HasSuffix(file, "_test.go") }); i >= 0 {
		t.Errorf("%s is no part of the program", sources[i])
	}
}
