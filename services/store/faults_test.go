package store_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

// timeout of the stores in these tests.
const timeout = time.Second

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

// wantUnavailable makes all calls at the same time, several times each, and checks that every
// one fails in time.
func wantUnavailable(t *testing.T, bound time.Duration, kinds map[string]func(ctx context.Context) error) {
	t.Helper()
	var wg sync.WaitGroup
	for name, call := range kinds {
		for range 3 {
			wg.Go(func() {
				inTime(t, bound, name, func(ctx context.Context) {
					if err := call(ctx); !isUnavailable(err) {
						t.Errorf("%s: %v", name, err)
					}
				})
			})
		}
	}
	wg.Wait()
}

// inTime checks that a call returns within bound. One that would wait for ever is ended later.
func inTime(t *testing.T, bound time.Duration, name string, call func(ctx context.Context)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	began := time.Now()
	call(ctx)
	if took := time.Since(began); took > bound+servicestest.Slack(began) {
		t.Errorf("%s took %v, may take %v", name, took, bound)
	}
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

func TestPostgresIsGone(t *testing.T) {
	t.Parallel()
	server := servicestest.StartPostgresServer(t)
	opts := store.Options{URL: server.URL, Timeout: timeout, MaxConns: 3}
	s := openWith(t, opts)
	kinds := calls(s, newUser(t, openWith(t, store.Options{URL: server.URL, Timeout: time.Minute}), "ann@example.com"))
	wantWorking(t, kinds)
	t.Run("while it hangs every call fails in time, on old and on new connections", func(t *testing.T) {
		server.Freeze()
		wantUnavailable(t, timeout, kinds)
		wantUnavailable(t, timeout, kinds)
		server.Thaw()
		wantWorking(t, kinds)
	})
	t.Run("while it hangs Close does not wait, and Open gives up after 5 s", func(t *testing.T) {
		closed := must(store.Open(t.Context(), opts))
		server.Freeze()
		defer server.Thaw()
		inTime(t, timeout, "Close", func(context.Context) { _ = closed.Close() })
		inTime(t, 5*time.Second+timeout, "Open", func(ctx context.Context) { wantError(t, errorOf(store.Open(ctx, opts)), models.ErrUnavailable) })
	})
	t.Run("when it has stopped every call fails in time", func(t *testing.T) {
		wantWorking(t, kinds)
		server.Stop()
		wantUnavailable(t, timeout, kinds)
	})
}

// Calls that hang use up all connections: the others fail in time, and the log, with a
// connection of its own, is read all the same.
func TestLogDoesNotWaitForThePool(t *testing.T) {
	url := servicestest.StartPostgres(t)
	s := openWith(t, store.Options{URL: url, Timeout: 2 * timeout, MaxConns: 2})
	kinds := calls(s, newUser(t, openWith(t, store.Options{URL: url, Timeout: time.Minute}), "ann@example.com"))
	readLog := kinds["log"]
	delete(kinds, "log")
	delete(kinds, "ping")

	raw := openRaw(url)
	defer raw.Close()
	tx := must(raw.BeginTx(t.Context(), nil))
	must(tx.Exec(`LOCK TABLE users, processes, sessions, networks IN ACCESS EXCLUSIVE MODE`))

	done := make(chan struct{})
	go func() {
		defer close(done)
		wantUnavailable(t, 2*timeout, kinds)
	}()
	reads := 0
	for hanging := true; hanging; {
		began := time.Now()
		err := readLog(t.Context())
		if err != nil && servicestest.Slack(began) < timeout {
			t.Error(err)
		}
		select {
		case <-done:
			hanging = false
		default:
			if err == nil { // a machine may be too busy for one of them
				reads++
			}
		}
	}
	if reads < 10 {
		t.Error("the log was not read while the others waited")
	}
	check(t, tx.Rollback())
	wantWorking(t, kinds)
}

// Another process holds the write lock of the SQLite file.
func TestLockedSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := openWith(t, store.Options{URL: path, Timeout: timeout})
	user := newUser(t, openWith(t, store.Options{URL: path, Timeout: time.Minute}), "ann@example.com")
	raw := openRaw("file:" + path + "?_txlock=immediate")
	defer raw.Close()
	tx := must(raw.BeginTx(t.Context(), nil))

	kinds := calls(s, user)
	for _, name := range []string{"ping", "read", "list", "log", "clean up sessions"} { // which finds none, and so writes nothing
		wantWorking(t, map[string]func(context.Context) error{name: kinds[name]})
		delete(kinds, name)
	}
	wantUnavailable(t, timeout, kinds)
	check(t, tx.Rollback())
	wantWorking(t, kinds)
}
