package servicestest

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Process is a program that runs beside the test, which may stop and continue it.
type Process struct {
	// What it wrote so far; empty if the command had a writer of its own.
	Stdout, Stderr LogLines

	t     testing.TB
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended and its output is read
}

// Start starts cmd. It is killed when the test ends, or the test binary.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	lookAtSources()
	p := &Process{t: t, cmd: cmd, ended: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.Stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.Stderr
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if cmd.WaitDelay == 0 { // or a child that outlives it keeps its output open for ever
		cmd.WaitDelay = Patience / 2
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(p.Kill)
	return p
}

// RunAgain runs one test of this test binary in a process of its own, as Again says. What it writes
// to its standard error is the caller's.
func RunAgain(t testing.TB, test string, env ...string) *Process {
	t.Helper()
	return Start(t, Again(test, env...))
}

// Again is the command that runs one test of this test binary in a process of its own, with env
// added to the environment: a variable of env says to that test that it is the other process.
func Again(test string, env ...string) *exec.Cmd {
	// go test notes every file that a test opens, and that is a program to start, too. Under its own
	// name, in tmp/test, this one has another date after each build, and no result would be taken
	// from the cache. That results depend on it go test knows anyway.
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+test+"$", "-test.count=1")
	cmd.Args[0] = os.Args[0]
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), os.Stderr
	return cmd
}

// Lines returns the lines that start with prefix, without it, of what the process wrote to its
// standard output so far.
func (p *Process) Lines(prefix string) []string {
	var found []string
	for line := range strings.Lines(p.Stdout.String()) {
		if rest, ok := strings.CutPrefix(line, prefix); ok && strings.HasSuffix(rest, "\n") {
			found = append(found, strings.TrimSuffix(rest, "\n"))
		}
	}
	return found
}

// Pid is the process's number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Freeze stops the process where it is (SIGSTOP).
func (p *Process) Freeze() { p.Signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (p *Process) Thaw() { p.Signal(syscall.SIGCONT) }

// Terminate asks the process to end (SIGTERM).
func (p *Process) Terminate() { p.Signal(syscall.SIGTERM) }

// Signal sends a signal. One that comes after the process's end is no fault.
func (p *Process) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// Kill ends the process at once. Killing twice is harmless.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// Ended is closed when the process has ended and its output is whole.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// HasEnded reports whether the process has ended.
func (p *Process) HasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// ExitCode waits for the end of a process that is about to end, and returns its exit code, -1 if
// a signal ended it.
func (p *Process) ExitCode() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(Patience):
		p.t.Fatalf("process %d does not end\n%s%s", p.Pid(), p.Stdout.Last(60), p.Stderr.Last(60))
	}
	return p.cmd.ProcessState.ExitCode()
}
