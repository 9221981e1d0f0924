package e2e

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gatehouse/services/servicestest"
)

const readmeAddr = "127.0.0.1:8080" // where the README says that it serves

// shown is a shell block of a document and, if it answers, the answer shown below it.
type shown struct {
	document string
	command  block
	answer   *block
}

// commands are the shell blocks of a document, but for those that start or test gatehouse.
func commands(t *testing.T, d document) []shown {
	t.Helper()
	var all []shown
	for _, b := range d.blocks {
		switch {
		case b.language == "http" || b.language == "json":
			if len(all) == 0 || all[len(all)-1].answer != nil {
				t.Fatalf("%s:%d: an answer without a command", d.name, b.line)
			}
			all[len(all)-1].answer = &b
		case b.language == "sh" && b.text != "go run .\n":
			all = append(all, shown{document: d.name, command: b})
		}
	}
	return all
}

// TestReadmeCommands does what a newcomer does: in a fresh copy of the
// repository it runs the shell blocks of the README and then of API.md, one
// after the other in one shell, and holds each answer to the one that is shown.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	servicestest.Need(t, "curl", "curl") // most commands are
	readme, api := readDocument(t, "README.md"), readDocument(t, "API.md")
	all := append(commands(t, readme), commands(t, api)...)
	answers := 0
	for _, s := range all {
		if s.answer != nil {
			answers++
		}
	}
	start := slices.ContainsFunc(readme.blocks, func(b block) bool { return b.language == "sh" && b.text == "go run .\n" })
	if !start || answers < 13 {
		t.Fatalf("the README has go run: %t, and with API.md %d answers", start, answers)
	}

	addr := goRun(t, copyRepository(t))
	var script strings.Builder
	for _, s := range all {
		fmt.Fprintf(&script, "printf '\\036'\n%s", strings.ReplaceAll(s.command.text, readmeAddr, addr))
		if strings.Contains("\n"+s.command.text, "\n#") || strings.Contains(s.command.text, " #") {
			t.Errorf("%s:%d: a comment; pasted into zsh it is an error", s.document, s.command.line)
		}
	}
	shell := exec.Command("bash", "-euo", "pipefail", "-c", script.String())
	shell.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	ran := servicestest.Start(t, shell)
	if code := ran.ExitCode(); code != 0 {
		t.Fatalf("the commands: exit code %d\n%s\n%s", code, &ran.Stderr, &ran.Stdout)
	}
	for i, got := range strings.Split(ran.Stdout.String(), "\x1e")[1:] {
		switch s := all[i]; {
		case s.answer != nil:
			s.answer.compare(t, s.document, got)
		case strings.TrimSpace(got) != "":
			t.Errorf("%s:%d answers, and the document does not show it:\n%s", s.document, s.command.line, got)
		}
	}

	// The pages they name are there.
	for _, address := range regexp.MustCompile(`<http://`+readmeAddr+`([^>]*)>`).FindAllStringSubmatch(readme.text+api.text, -1) {
		res, err := http.Get("http://" + addr + address[1])
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s answers %d", address[0], res.StatusCode)
		}
	}
}

// compare holds an answer to the one that a document shows, in which "…" is
// anything, and seconds left and the room between values do not matter.
func (b block) compare(t *testing.T, document, answer string) {
	t.Helper()
	wantHead, wantBody := "", b.text
	body := answer
	if b.language == "http" {
		var head string
		wantHead, wantBody, _ = strings.Cut(b.text, "\n\n")
		head, body, _ = strings.Cut(strings.ReplaceAll(answer, "\r\n", "\n"), "\n\n")
		got := strings.Split(head, "\n")
		for i, line := range strings.Split(strings.TrimSpace(wantHead), "\n") {
			matches := func(header string) bool {
				return pattern(strings.ToLower(line)).MatchString(packed(strings.ToLower(header)))
			}
			if i == 0 && !matches(got[0]) || !slices.ContainsFunc(got, matches) {
				t.Errorf("%s:%d shows %q; the answer is\n%s", document, b.line, line, answer)
			}
		}
	}
	if !pattern(wantBody).MatchString(packed(body)) {
		t.Errorf("%s:%d shows\n%sThe answer is\n%s", document, b.line, wantBody, body)
	}
}

// packed is text without spaces and line ends.
func packed(text string) string { return strings.Join(strings.Fields(text), "") }

// pattern matches, packed, what a document means by shown.
func pattern(shown string) *regexp.Regexp {
	expression := strings.ReplaceAll(regexp.QuoteMeta(packed(shown)), "…", ".*")
	left := regexp.MustCompile(`("expiresIn":|"ttl":|^retry-after:)\d+`)
	return regexp.MustCompile("^" + left.ReplaceAllString(expression, `${1}\d+`) + "$")
}

// copyRepository copies what a clone has: neither settings nor databases nor
// anything built.
func copyRepository(t *testing.T) string {
	t.Helper()
	source, clone := os.DirFS(".."), t.TempDir()
	err := fs.WalkDir(source, ".", func(name string, entry fs.DirEntry, err error) error {
		base := filepath.Base(name)
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "bin", "tmp"}, base):
			return fs.SkipDir
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(clone, name), 0o755)
		case base == ".env" || strings.Contains(base, ".db"):
			return nil
		}
		content, err := fs.ReadFile(source, name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(clone, name), content, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return clone
}

// goRun runs "go run ." in a folder until the test ends, then stops it as Ctrl+C
// does. It returns where it serves: at the README's address, or if that is taken
// at another.
func goRun(t *testing.T, folder string) string {
	t.Helper()
	// No limit of time counts the build: how long it takes is the machine's affair.
	build := exec.CommandContext(t.Context(), "go", "build", "-o", os.DevNull, ".")
	build.Dir = folder
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command("go", "run", ".")
	cmd.Dir, cmd.SysProcAttr = folder, &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = slices.DeleteFunc(os.Environ(), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.ContainsFunc(exampleFile(t), func(v variable) bool { return v.name == name })
	})
	addr := readmeAddr
	if res, err := http.Get("http://" + readmeAddr + "/"); err == nil {
		res.Body.Close()
		addr = servicestest.FreeAddr(t)
		cmd.Env = append(cmd.Env, "ADDR="+addr)
		t.Logf("%s is taken: using %s", readmeAddr, addr)
	}
	p := servicestest.Start(t, cmd)
	t.Cleanup(func() {
		defer syscall.Kill(-p.Pid(), syscall.SIGKILL)
		_ = syscall.Kill(-p.Pid(), syscall.SIGINT)
		p.ExitCode() // 1 after Ctrl+C, whatever the program said: that is go's way
		if all := p.Stdout.String() + p.Stderr.String(); !strings.Contains(all, "shutting down") || strings.Contains(all, "exit status") {
			t.Errorf("after Ctrl+C:\n%s", all)
		}
	})
	servicestest.Eventually(t, func() bool {
		if p.HasEnded() {
			t.Fatalf("go run ended\n%s%s", &p.Stdout, &p.Stderr)
		}
		res, err := http.Get("http://" + addr + "/readyz")
		if err == nil {
			res.Body.Close()
		}
		return err == nil && res.StatusCode == http.StatusOK
	}, "go run does not serve at "+addr)
	return addr
}
