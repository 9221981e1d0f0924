package bench

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/pprof/profile"

	"gatehouse/services/servicestest"
)

// TestProfile writes the profile that Go builds gatehouse with: where the program spends its time
// while 64 clients edit and read. `make profile` runs it.
func TestProfile(t *testing.T) {
	to := os.Getenv("GATEHOUSE_PROFILE")
	if to == "" {
		t.Skip("make profile runs it")
	}
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-trimpath", "-tags=nomsgpack", "-o", filepath.Join(bin, "gatehouse"), "./profiled").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := startGatehouse(t, bin)
	var clients []*httpClient
	for i := range 64 {
		clients = append(clients, s.client(t, i))
	}
	for _, work := range []func(*httpClient) error{
		(*httpClient).edit, (*httpClient).edit, (*httpClient).readProcess, (*httpClient).readSession,
		(*httpClient).edit, (*httpClient).edit, (*httpClient).readProcess, (*httpClient).readSession,
	} {
		s.turn(t, clients, work)
	}
	if err := syscall.Kill(s.app, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	written := filepath.Join(s.folder, "profile")
	servicestest.Eventually(t, func() bool {
		_, err := os.Stat(written)
		return err == nil
	}, "no profile is written")
	if err := keepProfile(written, to); err != nil {
		t.Fatal(err)
	}
}

// keepProfile copies a profile without what it says of the machine.
func keepProfile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	p, err := profile.ParseData(data)
	if err != nil {
		return err
	}
	for _, m := range p.Mapping {
		m.File = filepath.Base(m.File)
	}
	var kept bytes.Buffer
	if err := p.Compact().Write(&kept); err != nil {
		return err
	}
	return os.WriteFile(to, kept.Bytes(), 0o644)
}
