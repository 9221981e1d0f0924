package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// Several processes open the same new database at once and count together,
// under the database rule.
func TestProcessesShareOneDatabase(t *testing.T) {
	onNew(t, func(t *testing.T, url string) {
		const processes = 3
		var all []*servicestest.Process
		for range processes {
			all = append(all, servicestest.RunAgain(t, "TestCountingProcess", countingURL+"="+url))
		}
		for _, process := range all {
			if code := process.ExitCode(); code != 0 {
				t.Errorf("a process ended with %d: %s", code, process.Stdout.Last(10))
			}
		}
		s := open(t, url)
		if got := must(s.Process(t.Context(), "1")); got.Version != 1+processes*increments {
			t.Fatalf("version is %d, want %d", got.Version, 1+processes*increments)
		}
		if head := must(s.Revocations(t.Context(), 0, time.Time{})).Head; head != processes {
			t.Fatalf("head is %d, want %d", head, processes)
		}
	})
}

const (
	increments  = 10
	countingURL = "GATEHOUSE_TEST_COUNTING_URL"
)

// TestCountingProcess is what the processes above run; it does nothing by itself.
func TestCountingProcess(t *testing.T) {
	url := os.Getenv(countingURL)
	if url == "" {
		t.Skip("runs in a process of its own")
	}
	s := open(t, url)
	must(s.CreateProcess(t.Context(), "", fields("counter"))) // the first one has id 1
	for range increments {
		servicestest.Eventually(t, func() bool {
			p, err := s.Process(t.Context(), "1")
			if errors.Is(err, models.ErrNotFound) { // PostgreSQL: a later id was committed first
				return false
			}
			check(t, err)
			_, err = s.UpdateProcess(t.Context(), p.ID, "", fields("counter"), models.WriteGuard{GrantedVersion: p.Version})
			if err != nil && !errors.Is(err, models.ErrVersionConflict) {
				t.Fatal(err)
			}
			return err == nil
		}, "the others always write first")
	}
	check(t, s.EndSessions(t.Context(), models.Ending{Everybody: true}))
}

func TestSQLiteFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "odd name ?#%41&x=1.db")
	s := open(t, path)
	newUser(t, s, "ann@example.com")
	files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	check(t, err)
	if len(files) != 3 || files[0] != path {
		t.Fatalf("files are %q", files)
	}
	for _, file := range files {
		if mode := must(os.Stat(file)).Mode(); mode != 0o600 {
			t.Errorf("%s has mode %v", file, mode)
		}
	}
}

func TestRelativeSQLitePath(t *testing.T) {
	t.Chdir(t.TempDir())
	s := open(t, "here.db")
	newUser(t, s, "ann@example.com")
	must(os.Stat("here.db"))
}

// Each migration exists for both databases.
func TestMigrationsArePaired(t *testing.T) {
	names := func(folder string) string {
		files := must(filepath.Glob("migrations/" + folder + "/*.sql"))
		for i, file := range files {
			files[i] = filepath.Base(file)
		}
		return strings.Join(files, " ")
	}
	if s, p := names("sqlite"), names("postgres"); s != p || s == "" {
		t.Errorf("SQLite has %q, PostgreSQL %q", s, p)
	}
}
