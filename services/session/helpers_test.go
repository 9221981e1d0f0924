package session_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
	"gatehouse/services/store"
)

// revokeBound is how long an ended session may live elsewhere; the margin is for
// a busy machine.
const revokeBound = 2*time.Second + 500*time.Millisecond

// testDB is a store that a test can make fail and watch.
type testDB struct {
	*store.Store
	path    string
	gone    atomic.Bool
	reads   atomic.Int64
	touches atomic.Int64
	notes   atomic.Int64
	// afterRead runs between the read of a row and its return.
	afterRead atomic.Pointer[func()]
}

var errGone = fmt.Errorf("the test took the database away: %w", models.ErrUnavailable)

func (d *testDB) Session(ctx context.Context, hash string, now time.Time) (models.Session, error) {
	d.reads.Add(1)
	if d.gone.Load() {
		return models.Session{}, errGone
	}
	s, err := d.Store.Session(ctx, hash, now)
	if pause := d.afterRead.Load(); pause != nil {
		(*pause)()
	}
	return s, err
}

func (d *testDB) TouchSessions(ctx context.Context, seen []models.Activity) ([]string, error) {
	d.touches.Add(1)
	if d.gone.Load() {
		return nil, errGone
	}
	return d.Store.TouchSessions(ctx, seen)
}

func (d *testDB) NoteChange(ctx context.Context, hash string) error {
	d.notes.Add(1)
	if d.gone.Load() {
		return errGone
	}
	return d.Store.NoteChange(ctx, hash)
}

func (d *testDB) Revocations(ctx context.Context, after int64, since time.Time) (models.Revocations, error) {
	if d.gone.Load() {
		return models.Revocations{}, errGone
	}
	return d.Store.Revocations(ctx, after, since)
}

func openDB(t *testing.T, path string) *testDB {
	t.Helper()
	opt := store.Options{URL: path}
	if servicestest.LongProof() {
		opt.Timeout = 10 * time.Second // the race detector makes long writes forty times as long
	}
	db, err := store.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &testDB{Store: db, path: path}
}

// exec changes a SQLite file, not through the store.
func (d *testDB) exec(t *testing.T, query string) {
	t.Helper()
	raw, err := sql.Open("sqlite", d.path)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetMaxOpenConns(1)
	if _, err := raw.ExecContext(t.Context(), "PRAGMA busy_timeout = 5000; "+query); err != nil {
		t.Fatal(err)
	}
}

// instance is one gatehouse process as far as sessions go.
type instance struct {
	*session.Cache
	db    *testDB
	redis *redis.Client
}

// startInstances starts instances that share a database and, if server is not nil, a Redis.
func startInstances(t *testing.T, n int, server *servicestest.RedisServer, opt session.Options) []instance {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sessions.db")
	var all []instance
	for range n {
		rdb := redistest.Start(t, redis.Options{Disabled: true})
		if server != nil {
			rdb = redistest.New(t, server.Addr)
		}
		all = append(all, startInstance(t, path, rdb, opt))
	}
	return all
}

func startInstance(t *testing.T, path string, rdb *redis.Client, opt session.Options) instance {
	t.Helper()
	db := openDB(t, path)
	if opt.Logger == nil {
		opt.Logger = redistest.Quiet()
	}
	if opt.Secrets == nil {
		opt.Secrets = []string{"a secret of at least thirty-two bytes"}
	}
	opt.Watch, opt.Budget = db.WatchRevocations, db.WithinBudget
	cache, err := session.NewCache(rdb, db, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := cache.Close(ctx); err != nil && !db.gone.Load() {
			t.Error(err)
		}
	})
	return instance{cache, db, rdb}
}

// ChangePassword gives a session a new token together with a new password.
func (i instance) ChangePassword(ctx context.Context, s models.Session, epoch int64, newHash string) (string, models.Session, error) {
	return i.Rotate(ctx, s, epoch, func(next models.Session) error {
		return i.db.ChangePassword(ctx, s.User.ID, epoch, newHash, next)
	})
}

// signUp creates a user.
func signUp(t *testing.T, db *testDB, email string) models.Credentials {
	t.Helper()
	if _, err := db.CreateUser(t.Context(), email, "hash", []string{models.RoleEditor}); err != nil {
		t.Fatal(err)
	}
	credentials, err := db.Credentials(t.Context(), email)
	if err != nil {
		t.Fatal(err)
	}
	return credentials
}

func of(c models.Credentials) models.Session {
	return models.Session{User: models.UserRef{ID: c.ID, Email: c.Email}, Roles: c.Roles, Epoch: c.Epoch, UserAgent: "test", IP: "192.0.2.1"}
}

func signIn(t *testing.T, i instance, c models.Credentials) (string, models.Session) {
	t.Helper()
	token, s, err := i.Create(t.Context(), of(c))
	if err != nil {
		t.Fatal(err)
	}
	return token, s
}

func mustGet(t *testing.T, i instance, token string) models.Session {
	t.Helper()
	s, err := i.Get(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

func refused(t *testing.T, i instance, token string) {
	t.Helper()
	if _, err := i.Get(t.Context(), token); !errors.Is(err, models.ErrNotFound) {
		t.Fatalf("get an ended session: %v, want not found", err)
	}
}
