package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// document is one of the repository's Markdown files.
type document struct {
	name   string // from the repository's root
	text   string
	blocks []block
}

// block is a fenced block of a document.
type block struct {
	language string
	text     string
	line     int // where it begins
}

func readDocument(t *testing.T, name string) document {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	d := document{name: name, text: string(raw)}
	var open *block
	for i, line := range strings.Split(d.text, "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &block{language: language, line: i + 1}
		case fence:
			d.blocks = append(d.blocks, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block does not end", name, open.line)
	}
	return d
}

func readDocuments(t *testing.T) []document {
	t.Helper()
	var all []document
	for _, pattern := range []string{"../*.md", "../*/README.md"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			all = append(all, readDocument(t, strings.TrimPrefix(name, "../")))
		}
	}
	if len(all) < 10 {
		t.Fatalf("only %d documents", len(all))
	}
	return all
}

const columns = 100 // of a line in documents

// TestDocumentsReadWell: no line is too wide, but in tables and code, which cannot be
// wrapped, and sentences name the actor.
func TestDocumentsReadWell(t *testing.T) {
	code, vague := regexp.MustCompile("`[^`]*`"), regexp.MustCompile(`(?i)\b(some|any|no|every)body\b|\bwhoever\b`)
	for _, d := range readDocuments(t) {
		fenced := false
		for i, line := range strings.Split(d.text, "\n") {
			fence := strings.HasPrefix(line, "```")
			fenced = fenced != fence
			if wide := utf8.RuneCountInString(line) > columns; wide && !fenced && !strings.HasPrefix(line, "|") {
				t.Errorf("%s:%d has more than %d columns", d.name, i+1, columns)
			}
			if found := vague.FindString(code.ReplaceAllString(line, "")); found != "" {
				t.Errorf("%s:%d does not name who: %s", d.name, i+1, found)
			}
		}
	}
}

// TestDocumentsGo: their Go is code of the Examples, which run as tests. Whole programs run in
// TestLibraryPrograms.
func TestDocumentsGo(t *testing.T) {
	var examples strings.Builder
	for _, pattern := range []string{"../*/*example*_test.go", "../*/*/*example*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			examples.Write(source)
		}
	}
	found := 0
	for _, d := range readDocuments(t) {
		for _, b := range d.blocks {
			if b.language != "go" || strings.HasPrefix(b.text, libraryProgram) {
				continue
			}
			found++
			indented := regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(b.text, "\t$1")
			if !strings.Contains(examples.String(), "\n"+indented) {
				t.Errorf("%s:%d: this is not in an Example:\n%s", d.name, b.line, b.text)
			}
		}
	}
	if found == 0 {
		t.Error("no Go")
	}
}

// TestDocumentsFiles: the files, folders and tests by which documents say where something is
// are there.
func TestDocumentsFiles(t *testing.T) {
	found := 0
	for _, run := range regexp.MustCompile(`-run (\w+) \./(\S+)`).FindAllStringSubmatch(readDocument(t, "CONTRIBUTING.md").text, -1) {
		found++
		out, err := exec.Command("sh", "-ec", "grep -l '^func "+run[1]+"' ../"+run[2]+"/*_test.go").CombinedOutput()
		if err != nil {
			t.Errorf("CONTRIBUTING.md: there is no %s in %s: %v\n%s", run[1], run[2], err, out)
		}
	}
	for _, d := range []document{readDocument(t, "ARCHITECTURE.md"), readDocument(t, "CONTRIBUTING.md")} {
		for _, name := range regexp.MustCompile("`((?:[\\w.-]+/)*[\\w.-]+(?:\\.go|\\.md|\\.mod|/\\w+|/))`").FindAllStringSubmatch(d.text, -1) {
			found++
			if _, err := os.Stat(filepath.Join("..", name[1])); err != nil {
				t.Errorf("%s names %s: %v", d.name, name[1], err)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d files are named", found)
	}
}

// TestDocumentsMake: the targets of make that documents name are there.
func TestDocumentsMake(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, d := range readDocuments(t) {
		for _, target := range regexp.MustCompile("(?m)(?:`|^)make ([a-z-]+)").FindAllStringSubmatch(d.text, -1) {
			found++
			if !strings.Contains(string(makefile), "\n"+target[1]+":") {
				t.Errorf("%s: make has no target %s", d.name, target[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d targets are named", found)
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

// TestConfigurationTable: it has every variable of .env.example, which in turn is
// held to what the program reads, in its order and with its default. Other
// documents set no variable that it does not have.
func TestConfigurationTable(t *testing.T) {
	text := readDocument(t, "CONFIGURATION.md").text
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
	found := 0
	for _, d := range readDocuments(t) {
		for _, set := range regexp.MustCompile(`(?m)^    ([A-Z_]+)=`).FindAllStringSubmatch(d.text, -1) {
			found++
			if !slices.ContainsFunc(all, func(v variable) bool { return v.name == set[1] }) {
				t.Errorf("%s: %s is no variable", d.name, set[1])
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d variables are set", found)
	}
}

// TestDocumentsLinks: what the documents link to in the repository is there.
func TestDocumentsLinks(t *testing.T) {
	for _, d := range readDocuments(t) {
		for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(d.text, -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			file, _, _ := strings.Cut(link[1], "#")
			if _, err := os.Stat(filepath.Join("..", filepath.Dir(d.name), file)); err != nil {
				t.Errorf("%s links to %s: %v", d.name, link[1], err)
			}
		}
	}
}
