package store_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/store"
)

// Several instances in this process open the same new database at once.
func TestOpenNewDatabaseAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				s, err := store.Open(t.Context(), store.Options{URL: url, Timeout: 20 * time.Second})
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				if _, err := s.CreateUser(t.Context(), fmt.Sprintf("u%d@example.com", i), "", nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := len(must(open(t, url).Users(t.Context(), models.Page{})).Items); n != 6 {
			t.Fatalf("%d users, want 6", n)
		}
	})
}

// Several processes open the same new database at once and count together,
// under the database rule.
func TestProcessesShareOneDatabase(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		const processes = 4
		var wg sync.WaitGroup
		for range processes {
			wg.Go(func() {
				cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCountingProcess$", "-test.count=1", url)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
		wg.Wait()
		s := open(t, url)
		if got := must(s.Process(t.Context(), "1")); got.Version != 1+processes*increments {
			t.Fatalf("version is %d, want %d", got.Version, 1+processes*increments)
		}
		if head := must(s.Revocations(t.Context(), 0, time.Time{})).Head; head != processes {
			t.Fatalf("head is %d, want %d", head, processes)
		}
	})
}

const increments = 15

// TestCountingProcess is what the processes above run; it does nothing by itself.
func TestCountingProcess(t *testing.T) {
	url := flag.Arg(0)
	if url == "" {
		t.Skip("runs in a process of its own")
	}
	s := open(t, url)
	must(s.CreateProcess(t.Context(), "", fields("counter"))) // the first one has id 1
	for range increments {
		for late := time.Now().Add(20 * time.Second); ; {
			p, err := s.Process(t.Context(), "1")
			if errors.Is(err, models.ErrNotFound) && time.Now().Before(late) { // PostgreSQL: a later id was committed first
				continue
			}
			check(t, err)
			_, err = s.UpdateProcess(t.Context(), p.ID, "", fields("counter"), models.WriteGuard{GrantedVersion: p.Version})
			if err == nil {
				break
			}
			if !errors.Is(err, models.ErrVersionConflict) {
				t.Fatal(err)
			}
		}
	}
	check(t, s.EndSessions(context.Background(), models.Ending{Everybody: true}))
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
