package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// writerVariable makes the test binary, run again, a process that writes to the file it names.
const writerVariable = "GATEHOUSE_PROOF_STORE"

// TestProofWriter is such a process. It prints each write that was acknowledged, and how many
// groups there were by then.
func TestProofWriter(t *testing.T) {
	path := os.Getenv(writerVariable)
	if path == "" {
		return // it is not run as a process of another test
	}
	s, err := Open(t.Context(), Options{URL: path, Timeout: servicestest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	writes := s.write.(*group)
	inPlace, looks := writes.inPlace, atomic.Int64{}
	writes.inPlace = func() error { // asked before and after each group
		looks.Add(1)
		return inPlace()
	}
	var writers sync.WaitGroup
	for writer := range 64 {
		writers.Go(func() {
			for n := 0; ; n++ {
				title := fmt.Sprint(os.Getpid(), "-", writer, "-", n)
				p, err := s.CreateProcess(t.Context(), "", models.ProcessFields{Title: title})
				if err != nil {
					t.Error(err)
					return
				}
				fmt.Println("acknowledged", p.ID, title, looks.Load()/2)
			}
		})
	}
	writers.Wait()
}

// A process is killed (SIGKILL) while writes share commits: each that it acknowledged is there.
func TestProofKilledWhileWritesShareCommits(t *testing.T) {
	t.Parallel()
	rounds, each := 1, 1000
	if servicestest.LongProof() {
		rounds = 10
	}
	path := filepath.Join(t.TempDir(), "test.db")
	acknowledged := map[string]string{} // id to title
	for range rounds {
		process := servicestest.RunAgain(t, "TestProofWriter", writerVariable+"="+path)
		servicestest.Eventually(t, func() bool {
			return process.HasEnded() || len(process.Lines("acknowledged ")) >= each
		}, "too few writes were acknowledged")
		process.Kill()
		lines := process.Lines("acknowledged ")
		if len(lines) < each {
			t.Fatalf("the process ended after %d writes:\n%s", len(lines), process.Stdout.Last(20))
		}
		groups := 0
		for _, line := range lines {
			var id, title string
			if _, err := fmt.Sscan(line, &id, &title, &groups); err != nil {
				t.Fatal(err)
			}
			acknowledged[id] = title
		}
		if groups > len(lines)/2 {
			t.Errorf("%d writes took %d commits: they did not share them", len(lines), groups)
		}
		wantStored(t, path, acknowledged)
	}
	if !t.Failed() {
		t.Logf("%d acknowledged writes, 0 lost", len(acknowledged))
	}
}

// wantStored opens the file as the next start does, and looks for the processes.
func wantStored(t *testing.T, path string, titles map[string]string) {
	t.Helper()
	s, err := Open(t.Context(), Options{URL: path, Timeout: servicestest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wantTitles(t, s, titles)
	var sound string
	if err := s.read.QueryRowContext(t.Context(), `PRAGMA integrity_check`).Scan(&sound); err != nil || sound != "ok" {
		t.Errorf("integrity_check: %s, %v", sound, err)
	}
}

// wantTitles looks for the processes, and for a version of each in the history.
func wantTitles(t *testing.T, s *Store, titles map[string]string) {
	t.Helper()
	var lost []string
	stored := map[string]string{}
	_, err := collect(t.Context(), s.read, func(row scanner) (none struct{}, err error) {
		var id, title string
		err = row.Scan(&id, &title)
		stored[id] = title
		return none, err
	}, `SELECT processes.id, processes.title FROM processes
		JOIN process_versions ON process_id = processes.id AND process_versions.version = processes.version`)
	if err != nil {
		t.Fatal(err)
	}
	for id, title := range titles {
		if stored[id] != title {
			lost = append(lost, title)
		}
	}
	if len(lost) > 0 {
		t.Errorf("%d of %d acknowledged writes are lost: %s", len(lost), len(titles), strings.Join(lost, " "))
	}
}

// PostgreSQL is killed (SIGKILL, all its processes at once) while it is written to: each write that
// was acknowledged is there, with its version in the history, when the server has recovered. What
// the test's servers trade for speed would lose some.
func TestProofPostgresKilledWhileWritten(t *testing.T) {
	t.Parallel()
	rounds, each := 1, 200
	if servicestest.LongProof() {
		rounds, each = 20, 500
	}
	server := servicestest.StartPostgresServer(t, "synchronous_commit=on", "full_page_writes=on")
	s, err := Open(t.Context(), Options{URL: server.URL, Timeout: servicestest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var mu sync.Mutex
	acknowledged := map[string]string{} // id to title
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged)
	}
	for round := range rounds {
		var killed atomic.Bool
		var writers sync.WaitGroup
		for writer := range 8 {
			writers.Go(func() {
				for n := 0; !killed.Load(); n++ {
					title := fmt.Sprint(round, "-", writer, "-", n)
					p, err := s.CreateProcess(t.Context(), "", models.ProcessFields{Title: title})
					if err == nil { // the first ones after a start have connections that are gone
						mu.Lock()
						acknowledged[p.ID] = title
						mu.Unlock()
					}
				}
			})
		}
		before := count()
		servicestest.Eventually(t, func() bool { return count() >= before+each }, "too few writes were acknowledged")
		server.Kill(t)
		killed.Store(true)
		writers.Wait()
		server.Start(t)
		servicestest.Eventually(t, func() bool { return s.Ping(t.Context()) == nil }, "the store does not find PostgreSQL again")
		wantTitles(t, s, acknowledged)
	}
	if !t.Failed() {
		t.Logf("%d acknowledged writes, 0 lost", len(acknowledged))
	}
}
