package document

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// asvs is every requirement of OWASP ASVS 5.0 that applies here.
const asvs = `7.1.1 7.1.2 7.1.3 7.2.1 7.2.2 7.2.3 7.2.4 7.3.1 7.3.2 7.4.1 7.4.2 7.4.3 7.4.4 7.4.5 7.5.1 7.5.2 7.5.3 7.6.1 7.6.2
	3.3.1 3.3.2 3.3.3 3.3.4 3.3.5 3.5.1 3.5.2 3.5.3 4.1.3 6.1.1 6.3.1 6.3.5 6.3.8 8.3.2 11.4.2 11.5.1
	14.2.1 14.2.2 14.3.1 14.3.2 15.4.1 15.4.2 16.2.5 16.3.1 16.5.2 16.5.3`

// TestSecurityTable: SECURITY.md has each requirement once, with tests that exist
// or a decision.
func TestSecurityTable(t *testing.T) {
	text := Read(t, "SECURITY.md").Text
	tests := testNames(t)
	var listed []string
	for _, row := range regexp.MustCompile(`(?m)^\| ([0-9]+(?:\.[0-9]+){2}) \| L[123] \| (.+) \|$`).FindAllStringSubmatch(text, -1) {
		id, shown := row[1], row[2]
		listed = append(listed, id)
		named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(shown, -1)
		if len(named) == 0 && !strings.HasPrefix(shown, "Decision: ") {
			t.Errorf("%s has neither a test nor a decision", id)
		}
		for _, name := range named {
			if !tests[name[1]] {
				t.Errorf("%s: there is no %s", id, name[1])
			}
		}
	}
	want := strings.Fields(asvs)
	for _, id := range want {
		if n := len(slices.DeleteFunc(slices.Clone(listed), func(l string) bool { return l != id })); n != 1 {
			t.Errorf("%s is there %d times", id, n)
		}
	}
	if len(listed) != len(want) {
		t.Errorf("%d requirements, want %d", len(listed), len(want))
	}
}

// TestSecurityClaims: the tests that SECURITY.md names are there.
func TestSecurityClaims(t *testing.T) {
	tests := testNames(t)
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(Read(t, "SECURITY.md").Text, -1)
	for _, test := range named {
		if !tests[test[1]] {
			t.Errorf("there is no %s", test[1])
		}
	}
	if len(named) == 0 {
		t.Error("no test is named")
	}
}

// testNames are the tests of all packages.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir("../..", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && slices.Contains([]string{".git", "bin", "tmp"}, entry.Name()) {
			return fs.SkipDir // not opened: go test runs this again when what is opened changes
		}
		if err != nil || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		source, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, test := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(source, -1) {
			names[string(test[1])] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
