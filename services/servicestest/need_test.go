package servicestest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func (f *failure) Skipf(format string, args ...any) { f.Fatalf("skipped: "+format, args...) }

func (f *failure) Name() string { return "TestPage" }

func TestNeed(t *testing.T) {
	needs := func() string { return run(func(t testing.TB) { Need(t, "chromium", "no-such-program") }) }
	leftOut := filepath.Join(t.TempDir(), "left-out")
	t.Setenv("CI", "")
	t.Setenv("GATEHOUSE_WITHOUT", "")
	t.Setenv("GATEHOUSE_LEFT_OUT", leftOut)
	t.Run("what is there is found", func(t *testing.T) {
		if path := Need(t, "shell", "sh"); !filepath.IsAbs(path) {
			t.Errorf("sh is %q", path)
		}
	})
	t.Run("what is missing fails the test and says where to get it", func(t *testing.T) {
		if msg := needs(); !strings.HasPrefix(msg, "no-such-program is not installed: apt-get install") {
			t.Errorf("it said %q", msg)
		}
	})
	t.Run("what make test leaves out is skipped and counted", func(t *testing.T) {
		t.Setenv("GATEHOUSE_WITHOUT", "redis chromium")
		if msg := needs(); !strings.HasPrefix(msg, "skipped: ") {
			t.Errorf("it said %q", msg)
		}
		if noted, err := os.ReadFile(leftOut); err != nil || string(noted) != "chromium TestPage\n" {
			t.Errorf("noted is %q (%v)", noted, err)
		}
	})
	t.Run("something else left out skips nothing", func(t *testing.T) {
		t.Setenv("GATEHOUSE_WITHOUT", "redis")
		if msg := needs(); msg == "" || strings.HasPrefix(msg, "skipped: ") {
			t.Errorf("it said %q", msg)
		}
	})
	t.Run("CI skips nothing", func(t *testing.T) {
		t.Setenv("GATEHOUSE_WITHOUT", "chromium")
		t.Setenv("CI", "true")
		if msg := needs(); msg == "" || strings.HasPrefix(msg, "skipped: ") {
			t.Errorf("it said %q", msg)
		}
	})
}
