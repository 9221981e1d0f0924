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
	"time"

	"gatehouse/services/servicestest"
)

const (
	readmeAddr    = "127.0.0.1:8080" // where the README says that it serves
	goRunPatience = 2 * time.Minute  // for go run, which finds everything built, to link and to start
)

// block is a fenced block of the README.
type block struct {
	language string
	text     string
	line     int // where it begins
}

func readReadme(t *testing.T) (text string, blocks []block) {
	t.Helper()
	raw, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var open *block
	for i, line := range strings.Split(string(raw), "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &block{language: language, line: i + 1}
		case fence:
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	if open != nil {
		t.Fatalf("line %d: the block does not end", open.line)
	}
	return string(raw), blocks
}

// TestReadmeCommands does what a newcomer does: in a fresh copy of the
// repository it runs the README's shell blocks, one after the other in one
// shell, and holds each answer to the one that the README shows. Only make test
// is left out: this is part of it.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	text, blocks := readReadme(t)
	shown := map[int]block{} // the answer to each shell block
	var commands []block
	run := false
	for _, b := range blocks {
		switch {
		case b.language == "http" || b.language == "json":
			if _, twice := shown[len(commands)-1]; twice || len(commands) == 0 {
				t.Fatalf("line %d: an answer without a command", b.line)
			}
			shown[len(commands)-1] = b
		case b.language != "sh" || b.text == "make test\n":
		case b.text == "go run .\n":
			run = true
		default:
			commands = append(commands, b)
		}
	}
	if !run || len(shown) < 9 {
		t.Fatalf("the README has go run: %t, and %d answers", run, len(shown))
	}

	addr := goRun(t, copyRepository(t))
	var script strings.Builder
	for _, b := range commands {
		fmt.Fprintf(&script, "printf '\\036'\n%s", strings.ReplaceAll(b.text, readmeAddr, addr))
		if strings.Contains("\n"+b.text, "\n#") || strings.Contains(b.text, " #") {
			t.Errorf("line %d: a comment; pasted into zsh it is an error", b.line)
		}
	}
	shell := exec.Command("bash", "-euo", "pipefail", "-c", script.String())
	shell.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	shell.Stderr = &output{}
	out, err := shell.Output()
	if err != nil {
		t.Fatalf("the README's commands: %v\n%s\n%s", err, shell.Stderr, out)
	}
	answers := strings.Split(string(out), "\x1e")[1:]
	for i, b := range commands {
		want, answered := shown[i]
		switch {
		case !answered && strings.TrimSpace(answers[i]) != "":
			t.Errorf("line %d answers, and the README does not show it:\n%s", b.line, answers[i])
		case answered:
			want.compare(t, answers[i])
		}
	}

	// The pages it names are there.
	for _, address := range regexp.MustCompile(`<http://`+readmeAddr+`([^>]*)>`).FindAllStringSubmatch(text, -1) {
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

// compare holds an answer to the one that the README shows, in which "…" is
// anything, and seconds left and the room between values do not matter.
func (b block) compare(t *testing.T, answer string) {
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
				t.Errorf("line %d: the README shows %q; the answer is\n%s", b.line, line, answer)
			}
		}
	}
	if !pattern(wantBody).MatchString(packed(body)) {
		t.Errorf("line %d: the README shows\n%sThe answer is\n%s", b.line, wantBody, body)
	}
}

// packed is text without spaces and line ends.
func packed(text string) string { return strings.Join(strings.Fields(text), "") }

// pattern matches, packed, what the README means by shown.
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
	var said output
	cmd := exec.Command("go", "run", ".")
	cmd.Dir, cmd.Stdout, cmd.Stderr = folder, &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
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
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // with 1 after Ctrl+C, whatever the program said: that is go's way
		close(exited)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		select {
		case <-exited:
			if all := said.String(); !strings.Contains(all, "shutting down") || strings.Contains(all, "exit status") {
				t.Errorf("after Ctrl+C:\n%s", said.tail())
			}
		case <-time.After(stopPatience):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			t.Errorf("go run does not end after Ctrl+C\n%s", said.tail())
		}
	})
	servicestest.Eventually(t, goRunPatience, func() bool {
		select {
		case <-exited:
			t.Fatalf("go run ended\n%s", said.String())
		default:
		}
		return strings.Contains(said.String(), "http://"+addr+"/swagger/index.html")
	}, "go run does not serve at "+addr)
	servicestest.Eventually(t, startPatience, func() bool {
		res, err := http.Get("http://" + addr + "/readyz")
		if err == nil {
			res.Body.Close()
		}
		return err == nil && res.StatusCode == http.StatusOK
	}, "it is not ready")
	return addr
}
