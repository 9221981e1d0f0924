package servicestest

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Need returns the path of a program, which is one of what in GATEHOUSE_WITHOUT. A test whose
// machine does not have it fails. Where make test has said before that it leaves out what needs
// it, and names it in GATEHOUSE_WITHOUT, the test is skipped. In CI nothing is skipped.
func Need(t testing.TB, what, program string) (path string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		missing(t, what, program)
	}
	return path
}

func missing(t testing.TB, what, debian string) {
	t.Helper()
	says := fmt.Sprintf("%s is not installed: apt-get install -y %s", debian, debian)
	if os.Getenv("CI") != "" || !slices.Contains(strings.Fields(os.Getenv("GATEHOUSE_WITHOUT")), what) {
		t.Fatalf("%s", says)
	}
	if name := os.Getenv("GATEHOUSE_LEFT_OUT"); name != "" { // where make test counts them
		file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := fmt.Fprintln(file, what, t.Name()); err != nil {
			t.Fatal(err)
		}
	}
	t.Skipf("left out: %s", says)
}
