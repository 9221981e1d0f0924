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

// named finds the tests that a text names, and the folder that may stand behind a name.
var named = regexp.MustCompile("`((?:Test|Fuzz)\\w+)`(?: \\(([a-z0-9/]+)\\))?")

// TestSecurityTable: SECURITY.md has each requirement once, with a test or a decision.
func TestSecurityTable(t *testing.T) {
	text := Read(t, "SECURITY.md").Text
	var listed []string
	for _, row := range regexp.MustCompile(`(?m)^\| ([0-9]+(?:\.[0-9]+){2}) \| L[123] \| (.+) \|$`).FindAllStringSubmatch(text, -1) {
		id, shown := row[1], row[2]
		listed = append(listed, id)
		if !named.MatchString(shown) && !strings.HasPrefix(shown, "Decision: ") {
			t.Errorf("%s has neither a test nor a decision", id)
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

// TestSecurityClaims: the tests that SECURITY.md names are there. Where several packages have one
// of that name, it says which is meant.
func TestSecurityClaims(t *testing.T) {
	folders := testFolders(t)
	all := named.FindAllStringSubmatch(Read(t, "SECURITY.md").Text, -1)
	for _, test := range all {
		switch name, folder, there := test[1], test[2], folders[test[1]]; {
		case len(there) == 0:
			t.Errorf("there is no %s", name)
		case folder == "" && len(there) > 1:
			t.Errorf("%s is in each of %v: name the folder", name, there)
		case folder != "" && !slices.Contains(there, folder):
			t.Errorf("%s is in %v, not in %s", name, there, folder)
		}
	}
	if len(all) == 0 {
		t.Error("no test is named")
	}
}

// testFolders are the folders of each test, by its name.
func testFolders(t *testing.T) map[string][]string {
	t.Helper()
	folders := map[string][]string{}
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
			there, err := filepath.Rel("../..", filepath.Dir(name))
			if err != nil {
				return err
			}
			folders[string(test[1])] = append(folders[string(test[1])], filepath.ToSlash(there))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return folders
}
