package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/e2e/document"
	"gatehouse/services/servicestest"
)

const (
	libraryRedis = "127.0.0.1:6379" // where the programs of LIBRARY.md look for Redis
	libraryAddr  = "127.0.0.1:8081" // where the one with rate limits serves
	libraryLines = 15               // of main, at most
)

// TestLibraryPrograms does what LIBRARY.md says: in a new module it builds each program, and runs
// it against a real Redis.
func TestLibraryPrograms(t *testing.T) {
	t.Parallel()
	repository, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	var commands string
	var programs []string
	for _, b := range document.Read(t, "LIBRARY.md").Blocks {
		switch {
		case b.Language == "sh":
			commands += b.Text
		case b.Language == "go" && strings.HasPrefix(b.Text, document.Program):
			programs = append(programs, b.Text)
		}
	}
	const beside = "=../gatehouse\n"
	if len(programs) != 2 || strings.Count(commands, beside) != 1 {
		t.Fatalf("%d programs, and the commands\n%s", len(programs), commands)
	}
	// Its packages are built already, here and with these flags.
	commands = strings.ReplaceAll(commands, beside, "='"+repository+"'\n")
	build := func(name, program string) (path string, server *servicestest.RedisServer) {
		t.Helper()
		_, body, _ := strings.Cut(program, "func main() {\n")
		if lines := strings.Count(body, "\n") - 1; lines > libraryLines {
			t.Errorf("%s: main has %d lines", name, lines)
		}
		server = servicestest.StartRedis(t)
		folder := filepath.Join(parent, name)
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		program = strings.ReplaceAll(program, libraryRedis, server.Addr)
		if err := os.WriteFile(filepath.Join(folder, "main.go"), []byte(program), 0o600); err != nil {
			t.Fatal(err)
		}
		shell := exec.Command("bash", "-euo", "pipefail", "-c", "go mod init example.com/"+name+"\n"+commands+"go build -race=false -o program .")
		shell.Dir = folder
		if out, err := shell.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
		return filepath.Join(folder, "program"), server
	}

	addr := servicestest.FreeAddr(t)
	limits, server := build("limits", strings.ReplaceAll(programs[0], libraryAddr, addr))
	program := servicestest.Start(t, exec.Command(limits))
	ask := func() (status int, counted bool) {
		res, err := http.Get("http://" + addr + "/quote")
		if err != nil {
			return 0, false
		}
		defer res.Body.Close()
		return res.StatusCode, res.Header.Get("RateLimit") != "" && res.Header.Get("X-Degraded") == ""
	}
	servicestest.Eventually(t, func() bool { status, counted := ask(); return status == http.StatusOK && counted }, "limits does not count in Redis")
	servicestest.Eventually(t, func() bool { status, counted := ask(); return status == http.StatusTooManyRequests && counted }, "limits refuses nothing")
	if keys := server.Do("KEYS", "shop:*"); !strings.Contains(keys, "quote") {
		t.Errorf("Redis has the keys %q\n%s", keys, &program.Stderr)
	}

	locks, _ := build("locks", programs[1])
	servicestest.Eventually(t, func() bool { // it waits for Redis no longer than 100 ms
		out, err := exec.Command(locks).CombinedOutput()
		return err == nil && strings.Contains(string(out), "writing under fence ")
	}, "locks gets no lock")
}
