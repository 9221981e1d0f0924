// Package architecture holds the tree to its rules: what a folder may import, and what
// constructors must refuse. Its tests read all files, so any change runs them again: they are
// in a package of their own to take none of the slow tests with them.
package architecture_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "gatehouse"

// arrows says what each folder may import: our folders, and those of the guarded
// libraries. What is absent is forbidden, and so is a folder that is not here.
func arrows() map[string][]string {
	return map[string][]string{
		"internal/background":           {},
		"internal/require":              {},
		"models":                        {},
		"models/email":                  {"models"},
		"services/redis":                {"internal/require", "models", "rueidis"},
		"services/redis/embedded":       {"rueidis"},
		"services/redis/redistest":      {"services/redis", "services/redis/embedded", "services/servicestest"},
		"services/session":              {"internal/require", "models", "services/redis", "rueidis"},
		"services/ratelimit":            {"internal/require", "models", "services/redis", "rueidis"},
		"services/ratelimit/policyfile": {"services/ratelimit"},
		"services/lock":                 {"internal/require", "models", "services/redis", "rueidis"},
		"services":                      {"internal/background", "internal/require", "models", "models/email", "services/lock", "services/merge", "services/ratelimit", "services/session"},
		"services/merge":                {"models"},
		"services/fence":                {"models", "database/sql"},
		"services/store":                {"internal/background", "models", "models/email", "database/sql"},
		"services/servicestest":         {},
		"middleware":                    {"internal/require", "models", "gin", "gin-contrib/sessions"},
		"handlers":                      {"internal/require", "models", "models/email", "services", "services/redis", "services/lock", "services/merge", "services/ratelimit", "services/session", "middleware", "templates", "gin"},
		"templates":                     {},
		"docs":                          {},
		"e2e":                           {},
		"e2e/document":                  {},
		"proof":                         {},
		".":                             {"internal/app"},
		"internal/app": {"internal/config", "models", "services", "services/redis", "services/lock", "services/ratelimit", "services/ratelimit/policyfile", "services/redis/embedded", "services/session", "services/store", "middleware", "handlers", "templates", "docs",
			"gin"},
		"internal/config":       {"models", "models/email", "rueidis", "environment"},
		"internal/architecture": {},
	}
}

// guarded names, for the start of an import path, the arrow that it needs.
func guarded() map[string]string {
	return map[string]string{
		"github.com/gin-gonic/gin":        "gin",
		"github.com/gin-contrib/sessions": "gin-contrib/sessions",
		"github.com/redis/rueidis":        "rueidis",
		"database/sql":                    "database/sql",
		"github.com/jackc/pgx":            "database/sql",
		"github.com/pressly/goose":        "database/sql",
		"modernc.org/sqlite":              "database/sql",
		"github.com/caarlos0/env":         "environment",
		"github.com/joho/godotenv":        "environment",
	}
}

// harness is what tests may import, too.
var harness = []string{"services/servicestest", "services/redis/redistest", "e2e/document"}

// TestImports holds the tree to its architecture. It is no depguard of the linter because it
// also checks the packages of tests, reads of the environment, and init functions.
func TestImports(t *testing.T) {
	found, err := violations(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Error(v)
	}
}

// violations reads every Go file of the module and returns what breaks a rule:
//   - a folder imports what arrows does not allow it;
//   - models imports anything but the standard library;
//   - a test inside its package goes beyond the package's arrows and the harness.
//     (A test outside, package x_test, stands for an application that puts the
//     pieces together, as internal/app does. e2e and proof have the harness only.)
//   - a folder but main reads the environment, the harness and tests excepted;
//   - there is an init function outside docs.
func violations(tree fs.FS) ([]string, error) {
	var found []string
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || entry.Name() == "tmp" || hasModule(tree, name)) {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		source, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, what := range checkFile(name, file) {
			found = append(found, name+" "+what)
		}
		return nil
	})
	return found, err
}

// hasModule reports whether the folder is a module of its own.
func hasModule(tree fs.FS, folder string) bool {
	_, err := fs.Stat(tree, path.Join(folder, "go.mod"))
	return err == nil
}

func checkFile(name string, file *ast.File) []string {
	folder := path.Dir(name)
	allowed, known := arrows()[folder]
	if !known {
		return []string{"is in a folder that the architecture does not know"}
	}
	test := strings.HasSuffix(name, "_test.go")
	outside := test && strings.HasSuffix(file.Name.Name, "_test")
	if test {
		allowed = slices.Concat(allowed, harness)
	}
	if test && folder == "services/lock" {
		allowed = append(allowed, "services/fence") // which admits writes by a lock's fences
	}
	var found []string
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		ours, library := target(imported)
		switch {
		case ours == "" && library == "":
			if folder == "models" && !test && strings.Contains(strings.Split(imported, "/")[0], ".") {
				found = append(found, "imports "+imported+", which is not in the standard library")
			}
		case ours != "" && outside && folder != "e2e" && folder != "proof":
		case library != "" && test:
		case !slices.Contains(allowed, ours+library):
			found = append(found, "imports "+imported)
		}
	}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" && folder != "docs" {
			found = append(found, "has an init function")
		}
	}
	if folder != "." && !slices.Contains(harness, folder) && !test {
		found = append(found, readsOfEnvironment(file)...)
	}
	return found
}

// target returns which of our folders or which guarded library is imported; both
// are empty for anything else.
func target(imported string) (ours, library string) {
	if imported == module {
		return ".", ""
	}
	if folder, ok := strings.CutPrefix(imported, module+"/"); ok {
		return folder, ""
	}
	for prefix, library := range guarded() {
		if imported == prefix || strings.HasPrefix(imported, prefix+"/") {
			return "", library
		}
	}
	return "", ""
}

func readsOfEnvironment(file *ast.File) []string {
	var found []string
	for _, spec := range file.Imports {
		if spec.Path.Value != `"os"` && spec.Path.Value != `"syscall"` {
			continue
		}
		local := strings.Trim(spec.Path.Value, `"`)
		if spec.Name != nil {
			local = spec.Name.Name
		}
		ast.Inspect(file, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := selector.X.(*ast.Ident)
			reads := slices.Contains([]string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}, selector.Sel.Name)
			if ok && pkg.Name == local && reads {
				found = append(found, fmt.Sprintf("reads the environment with %s.%s", local, selector.Sel.Name))
			}
			return true
		})
	}
	return found
}

// TestViolations breaks each rule and wants it noticed.
func TestViolations(t *testing.T) {
	imports := func(pkg string, paths ...string) string {
		return "package " + pkg + "\nimport (\n_ \"" + strings.Join(paths, "\"\n_ \"") + "\"\n)\n"
	}
	for _, row := range []struct{ name, source, want string }{
		{"models/a.go", imports("models", "time", "encoding/json"), ""},
		{"models/a.go", imports("models", "github.com/google/uuid"), "imports github.com/google/uuid, which is not in the standard library"},
		{"models/a.go", imports("models", "gatehouse/services"), "imports gatehouse/services"},
		{"models/a.go", imports("models", "database/sql"), "imports database/sql"},
		{"services/a.go", imports("services", "gatehouse/models", "gatehouse/services/lock"), ""},
		{"services/a.go", imports("services", "github.com/redis/rueidis"), "imports github.com/redis/rueidis"},
		{"services/a.go", imports("services", "gatehouse/services/store"), "imports gatehouse/services/store"},
		{"services/a.go", imports("services", "github.com/gin-gonic/gin"), "imports github.com/gin-gonic/gin"},
		{"services/a.go", imports("services", "database/sql/driver"), "imports database/sql/driver"},
		{"services/a.go", imports("services", "gatehouse/services/servicestest"), "imports gatehouse/services/servicestest"},
		{"services/a_test.go", imports("services", "gatehouse/services/servicestest"), ""},
		{"services/a_test.go", imports("services", "gatehouse/services/store"), "imports gatehouse/services/store"},
		{"services/a_test.go", imports("services_test", "gatehouse/services/store"), ""},
		{"services/store/a.go", imports("store", "gatehouse/models", "database/sql", "modernc.org/sqlite", "github.com/jackc/pgx/v5/stdlib"), ""},
		{"services/store/a.go", imports("store", "github.com/redis/rueidis"), "imports github.com/redis/rueidis"},
		{"services/servicestest/a.go", imports("servicestest", "gatehouse/models"), "imports gatehouse/models"},
		{"middleware/a.go", imports("middleware", "gatehouse/models", "github.com/gin-gonic/gin/render", "github.com/gin-contrib/sessions"), ""},
		{"middleware/a.go", imports("middleware", "gatehouse/services"), "imports gatehouse/services"},
		{"handlers/a.go", imports("handlers", "gatehouse/models", "gatehouse/services", "gatehouse/middleware", "gatehouse/templates", "github.com/gin-gonic/gin"), ""},
		{"handlers/a.go", imports("handlers", "gatehouse/services/store"), "imports gatehouse/services/store"},
		{"handlers/a.go", imports("handlers", "github.com/gin-contrib/sessions"), "imports github.com/gin-contrib/sessions"},
		{"handlers/a.go", imports("handlers", "github.com/caarlos0/env/v11"), "imports github.com/caarlos0/env/v11"},
		{"handlers/a.go", "package handlers\nimport \"os\"\nvar home = os.Getenv(\"HOME\")", "reads the environment with os.Getenv"},
		{"handlers/a.go", "package handlers\nimport system \"os\"\nvar all = system.Environ()", "reads the environment with system.Environ"},
		{"handlers/a.go", "package handlers\nfunc init() {}", "has an init function"},
		{"handlers/a.go", "package handlers\ntype h struct{}\nfunc (h) init() {}", ""},
		{"handlers/a_test.go", "package handlers\nimport \"os\"\nvar home = os.Getenv(\"HOME\")", ""},
		{"docs/docs.go", "package docs\nimport _ \"github.com/swaggo/swag\"\nfunc init() {}", ""},
		{"e2e/a_test.go", imports("e2e_test", "gatehouse/services/servicestest", "github.com/chromedp/chromedp"), ""},
		{"e2e/a_test.go", imports("e2e_test", "gatehouse/models"), "imports gatehouse/models"},
		{"e2e/a_test.go", imports("e2e_test", "gatehouse/internal/app"), "imports gatehouse/internal/app"},
		{"proof/a_test.go", imports("proof_test", "gatehouse/services"), "imports gatehouse/services"},
		{"services/lock/a.go", imports("lock", "gatehouse/models", "gatehouse/services/redis"), ""},
		{"services/lock/a.go", imports("lock", "gatehouse/services/fence"), "imports gatehouse/services/fence"},
		{"services/lock/a_test.go", imports("lock", "gatehouse/services/fence"), ""},
		{"services/lock/a.go", imports("lock", "gatehouse/services/ratelimit"), "imports gatehouse/services/ratelimit"},
		{"services/session/a.go", imports("session", "gatehouse/services/lock"), "imports gatehouse/services/lock"},
		{"services/ratelimit/a.go", imports("ratelimit", "database/sql"), "imports database/sql"},
		{"services/redis/a.go", imports("redis", "gatehouse/services/lock"), "imports gatehouse/services/lock"},
		{"internal/app/a.go", imports("app", "gatehouse/handlers", "gatehouse/services/store", "gatehouse/internal/config"), ""},
		{"internal/app/a.go", imports("app", "github.com/joho/godotenv"), "imports github.com/joho/godotenv"},
		{"internal/config/a.go", imports("config", "github.com/joho/godotenv"), ""},
		{"main.go", imports("main", "gatehouse/internal/app") + "\nfunc main() {}", ""},
		{"main.go", imports("main", "gatehouse/handlers"), "imports gatehouse/handlers"},
		{"main.go", imports("main", "gatehouse/services/servicestest"), "imports gatehouse/services/servicestest"},
		{"util/a.go", "package util", "is in a folder that the architecture does not know"},
		{"bench/b/a.go", imports("bench", "gatehouse/models"), ""}, // a module of its own
	} {
		found, err := violations(fstest.MapFS{
			row.name:       {Data: []byte(row.source)},
			"bench/go.mod": {Data: []byte("module bench")},
		})
		want := []string{row.name + " " + row.want}
		if row.want == "" {
			want = nil
		}
		if err != nil || !slices.Equal(found, want) {
			t.Errorf("%s\n%s\n got %q, %v\nwant %q", row.name, row.source, found, err, want)
		}
	}
}
