package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

// timeout of the stores in these tests, and what a busy test machine may add.
const timeout, slack = 300 * time.Millisecond, 500 * time.Millisecond

// calls are one of each kind: a read, a write, a transaction, the log.
func calls(s *store.Store, user models.User) map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"ping": s.Ping,
		"read": func(ctx context.Context) error { _, err := s.User(ctx, user.ID); return err },
		"list": func(ctx context.Context) error { _, err := s.Users(ctx, models.Page{}); return err },
		"write": func(ctx context.Context) error {
			_, err := s.CreateProcess(ctx, user.ID, fields("x"))
			return err
		},
		"transaction": func(ctx context.Context) error { return s.EndSessions(ctx, models.Ending{UserID: user.ID}) },
		"log":         func(ctx context.Context) error { _, err := s.Revocations(ctx, 0, time.Time{}); return err },
		"clean up":    func(ctx context.Context) error { _, err := s.CleanUp(ctx, start, 10); return err },
		"clean up sessions": func(ctx context.Context) error {
			_, _, err := s.CleanUpSessions(ctx, start, "", 10)
			return err
		},
	}
}

// wantUnavailable makes all calls at the same time, several times each, and
// checks that every one fails in time.
func wantUnavailable(t *testing.T, kinds map[string]func(ctx context.Context) error) {
	t.Helper()
	var wg sync.WaitGroup
	for name, call := range kinds {
		for range 3 {
			wg.Go(func() {
				began := time.Now()
				err := call(t.Context())
				if took := time.Since(began); took > timeout+slack {
					t.Errorf("%s took %v, with a timeout of %v", name, took, timeout)
				}
				if err == nil {
					t.Errorf("%s worked", name)
				} else if text := fmt.Sprint(err); !isUnavailable(err) {
					t.Errorf("%s: %s", name, text)
				}
			})
		}
	}
	wg.Wait()
}

// wantWorking checks that all calls work again soon.
func wantWorking(t *testing.T, kinds map[string]func(ctx context.Context) error) {
	t.Helper()
	for name, call := range kinds {
		var err error
		servicestest.Eventually(t, func() bool {
			err = call(t.Context())
			return err == nil
		}, fmt.Sprint(name, " does not work again"))
	}
}

func TestFrozenPostgres(t *testing.T) {
	server := servicestest.StartPostgresServer(t)
	s := openWith(t, store.Options{URL: server.URL, Timeout: timeout, MaxConns: 3})
	user := newUser(t, s, "ann@example.com")
	kinds := calls(s, user)
	wantWorking(t, kinds)
	for range 2 {
		server.Freeze()
		wantUnavailable(t, kinds) // on connections that were good
		wantUnavailable(t, kinds) // on new ones
		server.Thaw()
		wantWorking(t, kinds)
	}
}

func TestCloseDoesNotWaitForFrozenPostgres(t *testing.T) {
	server := servicestest.StartPostgresServer(t)
	s := openWith(t, store.Options{URL: server.URL, Timeout: timeout})
	server.Freeze()
	began := time.Now()
	_ = s.Close()
	if took := time.Since(began); took > timeout+slack {
		t.Errorf("Close took %v", took)
	}
	server.Thaw()
}

func TestOpenOnFrozenPostgres(t *testing.T) {
	server := servicestest.StartPostgresServer(t)
	server.Freeze()
	began := time.Now()
	s, err := store.Open(t.Context(), store.Options{URL: server.URL, Timeout: timeout})
	if err == nil {
		s.Close()
		t.Fatal("opened")
	}
	wantError(t, err, models.ErrUnavailable)
	if took := time.Since(began); took > 2*timeout+slack {
		t.Errorf("Open took %v: %v", took, err)
	}
}

func TestStoppedPostgres(t *testing.T) {
	server := servicestest.StartPostgresServer(t)
	s := openWith(t, store.Options{URL: server.URL, Timeout: timeout})
	user := newUser(t, s, "ann@example.com")
	wantWorking(t, calls(s, user))
	server.Stop()
	wantUnavailable(t, calls(s, user))
}

// Calls that hang use up all connections: the others fail in time, and the
// the log, with its own, goes on.
func TestTailDoesNotWaitForThePool(t *testing.T) {
	url := servicestest.StartPostgres(t)
	s := openWith(t, store.Options{URL: url, Timeout: timeout, MaxConns: 2})
	user := newUser(t, s, "ann@example.com")
	kinds := calls(s, user)
	log := kinds["log"]
	delete(kinds, "log")
	delete(kinds, "ping")

	raw, err := sql.Open("pgx", url)
	check(t, err)
	defer raw.Close()
	tx, err := raw.BeginTx(t.Context(), nil)
	check(t, err)
	_, err = tx.Exec(`LOCK TABLE users, processes, sessions, networks IN ACCESS EXCLUSIVE MODE`)
	check(t, err)

	done := make(chan struct{})
	go func() {
		defer close(done)
		wantUnavailable(t, kinds)
	}()
	reads := 0
	for hanging := true; hanging; reads++ {
		began := time.Now()
		check(t, log(t.Context()))
		if took := time.Since(began); took > timeout/2 {
			t.Errorf("the log took %v", took)
		}
		select {
		case <-done:
			hanging = false
		default:
		}
	}
	if reads < 2 {
		t.Error("the log was not read while the others waited")
	}
	check(t, tx.Rollback())
	wantWorking(t, kinds)
}

// Another process holds the write lock of the SQLite file.
func TestLockedSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := openWith(t, store.Options{URL: path, Timeout: timeout})
	user := newUser(t, s, "ann@example.com")
	raw, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate")
	check(t, err)
	defer raw.Close()
	tx, err := raw.BeginTx(t.Context(), nil)
	check(t, err)

	kinds := calls(s, user)
	for _, name := range []string{"ping", "read", "list", "log", "clean up sessions"} { // which finds none, and so writes nothing
		check(t, kinds[name](t.Context()))
		delete(kinds, name)
	}
	wantUnavailable(t, kinds)
	check(t, tx.Rollback())
	wantWorking(t, kinds)
}
