package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gatehouse/e2e/document"
	"gatehouse/services/servicestest"
)

const readmeAddr = "127.0.0.1:8080" // where the README says that it serves

// shown is a shell block of a document and, if it answers, the answer shown below it.
type shown struct {
	document string
	command  document.Block
	answer   *document.Block
}

// commands are the shell blocks of a document, but for those that start or test gatehouse.
func commands(t *testing.T, d document.Document) []shown {
	t.Helper()
	var all []shown
	for _, b := range d.Blocks {
		switch {
		case b.Language == "http" || b.Language == "json":
			if len(all) == 0 || all[len(all)-1].answer != nil {
				t.Fatalf("%s:%d: an answer without a command", d.Name, b.Line)
			}
			all[len(all)-1].answer = &b
		case b.Language == "sh" && b.Text != "go run .\n":
			all = append(all, shown{document: d.Name, command: b})
		}
	}
	return all
}

// TestReadmeCommands does what a newcomer does: it starts gatehouse, runs the shell blocks of the
// README and then of API.md, one after the other in one shell, and holds each answer to the one
// that is shown.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	servicestest.Need(t, "curl", "curl") // most commands are
	readme, api := document.Read(t, "README.md"), document.Read(t, "API.md")
	all := append(commands(t, readme), commands(t, api)...)
	answers := 0
	for _, s := range all {
		if s.answer != nil {
			answers++
		}
	}
	start := slices.ContainsFunc(readme.Blocks, func(b document.Block) bool { return b.Language == "sh" && b.Text == "go run .\n" })
	if !start || answers < 13 {
		t.Fatalf("the README has go run: %t, and with API.md %d answers", start, answers)
	}

	addr := goRun(t)
	var script strings.Builder
	for _, s := range all {
		fmt.Fprintf(&script, "printf '\\036'\n%s", strings.ReplaceAll(s.command.Text, readmeAddr, addr))
		if strings.Contains("\n"+s.command.Text, "\n#") || strings.Contains(s.command.Text, " #") {
			t.Errorf("%s:%d: a comment; pasted into zsh it is an error", s.document, s.command.Line)
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
			compare(t, s.document, *s.answer, got)
		case strings.TrimSpace(got) != "":
			t.Errorf("%s:%d answers, and the document does not show it:\n%s", s.document, s.command.Line, got)
		}
	}

	// The pages they name are there.
	for _, address := range regexp.MustCompile(`<http://`+readmeAddr+`([^>]*)>`).FindAllStringSubmatch(readme.Text+api.Text, -1) {
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
func compare(t *testing.T, name string, b document.Block, answer string) {
	t.Helper()
	wantHead, wantBody := "", b.Text
	body := answer
	if b.Language == "http" {
		var head string
		wantHead, wantBody, _ = strings.Cut(b.Text, "\n\n")
		head, body, _ = strings.Cut(strings.ReplaceAll(answer, "\r\n", "\n"), "\n\n")
		got := strings.Split(head, "\n")
		for i, line := range strings.Split(strings.TrimSpace(wantHead), "\n") {
			matches := func(header string) bool {
				return pattern(strings.ToLower(line)).MatchString(packed(strings.ToLower(header)))
			}
			if i == 0 && !matches(got[0]) || !slices.ContainsFunc(got, matches) {
				t.Errorf("%s:%d shows %q; the answer is\n%s", name, b.Line, line, answer)
			}
		}
	}
	if !pattern(wantBody).MatchString(packed(body)) {
		t.Errorf("%s:%d shows\n%sThe answer is\n%s", name, b.Line, wantBody, body)
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

// goRun runs "go run ." until the test ends, then stops it as Ctrl+C does. The program runs in a
// folder with neither settings nor databases, as a clone has none. goRun returns where it serves:
// at the README's address, or if that is taken at another.
func goRun(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("go", "run", "-race=false", "-buildvcs=false", "-exec", `sh -c 'cd "$0" && exec "$@"' '`+t.TempDir()+`'`, ".")
	cmd.Dir, cmd.SysProcAttr = "..", &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = slices.DeleteFunc(os.Environ(), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.ContainsFunc(document.Variables(t), func(v document.Variable) bool { return v.Name == name })
	})
	// A Redis that is there may be slow on a machine that runs other tests, too.
	cmd.Env = append(cmd.Env, "REDIS_TIMEOUT=5s", "DATABASE_TIMEOUT=10s")
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
