package store_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

// world is an empty database, and two instances that use it.
type world struct {
	s, other *store.Store
	url      string
	raw      *sql.DB // behind the instances' back
}

// onBoth runs a test on each database. It is always the same one, emptied: to make one takes
// longer than most tests. A test that uses it is not parallel.
func onBoth(t *testing.T, test func(t *testing.T, w world)) {
	for name, kept := range map[string]*keptWorld{"sqlite": &keptSQLite, "postgres": &keptPostgres} {
		t.Run(name, func(t *testing.T) { test(t, kept.emptied(t)) })
	}
}

// onNew runs a test with the URL of a database in which nothing is, not even tables.
func onNew(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "test.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, servicestest.StartPostgres(t)) })
}

// keptWorld lasts until the test binary ends.
type keptWorld struct {
	make  func(t *testing.T) (url string)
	empty string // what empties it
	world
}

var (
	keptFolder   string // TestMain removes it
	keptSQLite   = keptWorld{make: func(*testing.T) string { return filepath.Join(keptFolder, "kept.db") }, empty: emptySQLite}
	keptPostgres = keptWorld{make: func(t *testing.T) string { return servicestest.KeptPostgres(t) }, empty: emptyPostgres}
)

const (
	emptyHead   = `; UPDATE revocation_head SET seq = 0, era = 1, mark = 0`
	emptySQLite = `DELETE FROM sessions; DELETE FROM networks; DELETE FROM drafts; DELETE FROM lock_ends; DELETE FROM lock_requests; DELETE FROM processes; DELETE FROM orphaned_drafts; DELETE FROM process_versions; DELETE FROM refusals; DELETE FROM users; DELETE FROM revocations;
		DELETE FROM audit; DELETE FROM settings; DELETE FROM sqlite_sequence` + emptyHead
	emptyPostgres = `TRUNCATE sessions, networks, drafts, orphaned_drafts, lock_ends, lock_requests, processes, process_versions, refusals, users, revocations, audit, settings RESTART IDENTITY` + emptyHead
)

func (k *keptWorld) emptied(t *testing.T) world {
	t.Helper()
	if k.s == nil {
		k.url = k.make(t)
		opts := store.Options{URL: k.url, Timeout: servicestest.Patience}
		k.s, k.other = must(store.Open(context.Background(), opts)), must(store.Open(context.Background(), opts))
		k.raw = openRaw(k.url)
	}
	_, err := k.raw.ExecContext(t.Context(), k.empty)
	check(t, err)
	return k.world
}

func (k *keptWorld) close() {
	if k.s != nil {
		_, _, _ = k.s.Close(), k.other.Close(), k.raw.Close()
	}
}

func TestMain(m *testing.M) {
	var err error
	if keptFolder, err = os.MkdirTemp("", "store-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	keptSQLite.close()
	keptPostgres.close()
	_ = os.RemoveAll(keptFolder)
	os.Exit(code)
}

// open opens a database with a timeout that a busy machine keeps.
func open(t *testing.T, url string) *store.Store {
	t.Helper()
	return openWith(t, store.Options{URL: url})
}

func openWith(t *testing.T, opts store.Options) *store.Store {
	t.Helper()
	if opts.Timeout == 0 {
		opts.Timeout = servicestest.Patience
	}
	s, err := store.Open(t.Context(), opts)
	check(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// openRaw opens a database without the store.
func openRaw(url string) *sql.DB {
	driver := "sqlite"
	if strings.HasPrefix(url, "postgres") {
		driver = "pgx"
	}
	return must(sql.Open(driver, url))
}

// behind changes a database behind the store's back.
func behind(t *testing.T, url string, queries ...string) {
	t.Helper()
	db := openRaw(url)
	defer db.Close()
	for _, query := range queries {
		_, err := db.ExecContext(t.Context(), query)
		check(t, err)
	}
}

// beforeEditing takes a database back to what it was before migration 5.
func beforeEditing(url string) []string {
	undo := []string{`DROP TRIGGER processes_created`, `DROP TRIGGER processes_changed`, `DROP TRIGGER processes_deleted`}
	if strings.HasPrefix(url, "postgres") {
		undo = []string{`DROP FUNCTION keep_process_version() CASCADE`, `DROP FUNCTION keep_lock_end() CASCADE`, `DROP FUNCTION keep_drafts() CASCADE`}
	}
	undo = append(undo, `DROP INDEX processes_by_title`)
	for _, table := range []string{"process_versions", "drafts", "orphaned_drafts", "refusals", "lock_requests", "lock_ends"} {
		undo = append(undo, `DROP TABLE `+table)
	}
	for _, column := range []string{"last_how", "last_fence", "last_request"} {
		undo = append(undo, `ALTER TABLE processes DROP COLUMN `+column)
	}
	return undo
}
