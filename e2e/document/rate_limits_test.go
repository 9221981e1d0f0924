package document

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// exported are the names that packages declare: functions, types, constants,
// methods and fields.
func exported(t *testing.T, folders ...string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, folder := range folders {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			ast.Inspect(file, func(node ast.Node) bool {
				switch n := node.(type) {
				case *ast.FuncDecl:
					names[n.Name.Name] = true
					return false
				case *ast.TypeSpec:
					names[n.Name.Name] = true
				case *ast.ValueSpec:
					for _, name := range n.Names {
						names[name.Name] = true
					}
				case *ast.Field:
					for _, name := range n.Names {
						names[name.Name] = true
					}
				}
				return true
			})
		}
	}
	return names
}

// Every name that the table for those who come from express-rate-limit gives exists.
func TestExpressTableNamesWhatExists(t *testing.T) {
	_, table, found := strings.Cut(Read(t, "RATE_LIMITS.md").Text, "\n## Coming from express-rate-limit\n")
	table, _, _ = strings.Cut(table, "\n## ")
	names := exported(t, "../../middleware", "../../models", "../../services", "../../services/*")
	code, name := regexp.MustCompile("`[^`]+`"), regexp.MustCompile(`\b[A-Z]\w+`)
	rows, checked := 0, 0
	for _, line := range strings.Split(table, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 4 || strings.HasPrefix(cells[1], "---") {
			continue
		}
		rows++
		for _, text := range code.FindAllString(cells[2], -1) {
			if text == "`RateLimit-Policy`" { // a header
				continue
			}
			for _, word := range name.FindAllString(text, -1) {
				checked++
				if !names[word] {
					t.Errorf("%s names %s, which does not exist", strings.TrimSpace(cells[1]), word)
				}
			}
		}
	}
	if !found || rows < 15 || checked < 20 {
		t.Errorf("%d rows and %d names were found", rows, checked)
	}
}
