package document

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

const columns = 100 // of a line in documents

// TestDocumentsReadWell: no line is too wide, but in tables and code, which cannot be
// wrapped, and sentences name the actor.
func TestDocumentsReadWell(t *testing.T) {
	code, vague := regexp.MustCompile("`[^`]*`"), regexp.MustCompile(`(?i)\b(some|any|no|every)body\b|\bwhoever\b`)
	for _, d := range ReadAll(t) {
		fenced := false
		for i, line := range strings.Split(d.Text, "\n") {
			fence := strings.HasPrefix(line, "```")
			fenced = fenced != fence
			if wide := utf8.RuneCountInString(line) > columns; wide && !fenced && !strings.HasPrefix(line, "|") {
				t.Errorf("%s:%d has more than %d columns", d.Name, i+1, columns)
			}
			if found := vague.FindString(code.ReplaceAllString(line, "")); found != "" {
				t.Errorf("%s:%d does not name who: %s", d.Name, i+1, found)
			}
		}
	}
}

// TestDocumentsGo: their Go is code of the Examples, which run as tests. Whole programs run in
// TestLibraryPrograms.
func TestDocumentsGo(t *testing.T) {
	var examples strings.Builder
	for _, pattern := range []string{"../../middleware/*example*_test.go", "../../services/*/*example*_test.go"} {
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
	for _, d := range ReadAll(t) {
		for _, b := range d.Blocks {
			if b.Language != "go" || strings.HasPrefix(b.Text, Program) {
				continue
			}
			found++
			indented := regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(b.Text, "\t$1")
			if !strings.Contains(examples.String(), "\n"+indented) {
				t.Errorf("%s:%d: this is not in an Example:\n%s", d.Name, b.Line, b.Text)
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
	for _, run := range regexp.MustCompile(`-run (\w+) \./(\S+)`).FindAllStringSubmatch(Read(t, "CONTRIBUTING.md").Text, -1) {
		found++
		out, err := exec.Command("sh", "-ec", "grep -l '^func "+run[1]+"' ../../"+run[2]+"/*_test.go").CombinedOutput()
		if err != nil {
			t.Errorf("CONTRIBUTING.md: there is no %s in %s: %v\n%s", run[1], run[2], err, out)
		}
	}
	for _, d := range []Document{Read(t, "ARCHITECTURE.md"), Read(t, "CONTRIBUTING.md")} {
		for _, name := range regexp.MustCompile("`((?:[\\w.-]+/)*[\\w.-]+(?:\\.go|\\.md|\\.mod|/\\w+|/))`").FindAllStringSubmatch(d.Text, -1) {
			found++
			if _, err := os.Stat(filepath.Join("../..", name[1])); err != nil {
				t.Errorf("%s names %s: %v", d.Name, name[1], err)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d files are named", found)
	}
}

// TestPackageDocumentsFiles: the files that the doc.go files name are in their package, or where
// their path says, and the tests are there.
func TestPackageDocumentsFiles(t *testing.T) {
	folders := testFolders(t)
	packages, err := filepath.Glob("../../services/*/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range append(packages, "../../services/doc.go") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range regexp.MustCompile(`[\w/*]+\.(?:go|lua)\b`).FindAllString(string(text), -1) {
			found++
			here, _ := filepath.Glob(filepath.Join(filepath.Dir(name), file))
			if _, err := os.Stat(filepath.Join("../..", file)); len(here) == 0 && err != nil {
				t.Errorf("%s names %s, which is not there", name, file)
			}
		}
		for _, test := range regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w+`).FindAllString(string(text), -1) {
			found++
			if len(folders[test]) == 0 {
				t.Errorf("%s names %s, which is not there", name, test)
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d files and tests are named", found)
	}
}

// TestDocumentsMake: the targets of make that documents name are there.
func TestDocumentsMake(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, d := range ReadAll(t) {
		for _, target := range regexp.MustCompile("(?m)(?:`|^)make ([a-z-]+)").FindAllStringSubmatch(d.Text, -1) {
			found++
			if !strings.Contains(string(makefile), "\n"+target[1]+":") {
				t.Errorf("%s: make has no target %s", d.Name, target[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d targets are named", found)
	}
}

// TestConfigurationTable: it has every variable of .env.example, which in turn is
// held to what the program reads, in its order and with its default. Other
// documents set no variable that it does not have.
func TestConfigurationTable(t *testing.T) {
	text := Read(t, "CONFIGURATION.md").Text
	var listed []Variable
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| (.*?) \\|").FindAllStringSubmatch(text, -1) {
		listed = append(listed, Variable{row[1], row[2]})
	}
	all := Variables(t)
	for i, v := range all {
		if i >= len(listed) || listed[i].Name != v.Name {
			t.Fatalf("row %d should be %s: the table has %v", i+1, v.Name, listed)
		}
		plain := strings.HasPrefix(listed[i].Value, "`")
		if v.Value != "" && listed[i].Value != "`"+v.Value+"`" || v.Value == "" && plain {
			t.Errorf("%s: the table says %s, the default is %q", v.Name, listed[i].Value, v.Value)
		}
	}
	if len(listed) != len(all) {
		t.Errorf("%d rows for %d variables", len(listed), len(all))
	}
	found := 0
	for _, d := range ReadAll(t) {
		for _, set := range regexp.MustCompile(`(?m)^    ([A-Z_]+)=`).FindAllStringSubmatch(d.Text, -1) {
			found++
			if !slices.ContainsFunc(all, func(v Variable) bool { return v.Name == set[1] }) {
				t.Errorf("%s: %s is no variable", d.Name, set[1])
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d variables are set", found)
	}
}

// TestDocumentsLinks: what the documents link to in the repository is there.
func TestDocumentsLinks(t *testing.T) {
	for _, d := range ReadAll(t) {
		for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(d.Text, -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			file, _, _ := strings.Cut(link[1], "#")
			if _, err := os.Stat(filepath.Join("../..", filepath.Dir(d.Name), file)); err != nil {
				t.Errorf("%s links to %s: %v", d.Name, link[1], err)
			}
		}
	}
}
