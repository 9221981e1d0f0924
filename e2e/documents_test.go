package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReadmeGo: the README's Go is code of the Examples, which run as tests.
func TestReadmeGo(t *testing.T) {
	_, blocks := readReadme(t)
	files, err := filepath.Glob("../*/*example*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no Examples", err)
	}
	files = append(files, "../services/store/example_fence_test.go")
	var examples strings.Builder
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		examples.Write(source)
	}
	found := 0
	for _, b := range blocks {
		if b.language != "go" {
			continue
		}
		found++
		indented := regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(b.text, "\t$1")
		if !strings.Contains(examples.String(), "\n"+indented) {
			t.Errorf("line %d: this is not in an Example:\n%s", b.line, b.text)
		}
	}
	if found == 0 {
		t.Error("no Go")
	}
}

// variable is one of .env.example.
type variable struct{ name, value string }

func exampleFile(t *testing.T) []variable {
	t.Helper()
	text, err := os.ReadFile("../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	var all []variable
	for _, found := range regexp.MustCompile(`(?m)^#?([A-Z_]+)=(.*)$`).FindAllStringSubmatch(string(text), -1) {
		all = append(all, variable{found[1], found[2]})
	}
	return all
}

// TestReadmeConfiguration: the table has every variable of .env.example, which
// in turn is held to what the program reads, in its order and with its default.
func TestReadmeConfiguration(t *testing.T) {
	text, _ := readReadme(t)
	var listed []variable
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| (.*?) \\|").FindAllStringSubmatch(text, -1) {
		listed = append(listed, variable{row[1], row[2]})
	}
	all := exampleFile(t)
	for i, v := range all {
		if i >= len(listed) || listed[i].name != v.name {
			t.Fatalf("row %d should be %s: the table has %v", i+1, v.name, listed)
		}
		plain := strings.HasPrefix(listed[i].value, "`")
		if v.value != "" && listed[i].value != "`"+v.value+"`" || v.value == "" && plain {
			t.Errorf("%s: the table says %s, the default is %q", v.name, listed[i].value, v.value)
		}
	}
	if len(listed) != len(all) {
		t.Errorf("%d rows for %d variables", len(listed), len(all))
	}
	for _, set := range regexp.MustCompile(`(?m)^    ([A-Z_]+)=`).FindAllStringSubmatch(text, -1) {
		if !slices.ContainsFunc(all, func(v variable) bool { return v.name == set[1] }) {
			t.Errorf("%s is no variable", set[1])
		}
	}
}

// TestReadmeLinks: what the documents link to in the repository is there.
func TestReadmeLinks(t *testing.T) {
	for _, name := range []string{"README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md"} {
		text, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			file, _, _ := strings.Cut(link[1], "#")
			if _, err := os.Stat(filepath.Join("..", file)); err != nil {
				t.Errorf("%s links to %s: %v", name, link[1], err)
			}
		}
	}
}

// TestSecurityClaims: the tests that SECURITY.md names are there.
func TestSecurityClaims(t *testing.T) {
	text, err := os.ReadFile("../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, files := range []string{"../*_test.go", "../*/*_test.go", "../*/*/*_test.go"} {
		names, err := filepath.Glob(files)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			source, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(source)
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(string(text), -1)
	for _, test := range named {
		if !strings.Contains(tests.String(), "\nfunc "+test[1]+"(") {
			t.Errorf("there is no %s", test[1])
		}
	}
	if len(named) == 0 {
		t.Error("no test is named")
	}
}
