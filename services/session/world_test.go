package session_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
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

// promised is how long after an acknowledged end a session may be accepted elsewhere, and data
// that was replaced may be read.
const promised = 2 * time.Second

// world is a database, the Redis servers beside it, and the instances that share them.
type world struct {
	store  *store.Store
	path   string                    // of the SQLite file
	server *servicestest.RedisServer // nil for a world without
	users  atomic.Int64
}

// newWorld is a SQLite file and a Redis.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := newWorldOn(t, newDatabase(t))
	w.server = servicestest.StartRedis(t)
	return w
}

// newDatabase is a SQLite file with the tables of a store and nothing in them.
var newDatabase = servicestest.Copies(func(path string) error {
	db, err := store.Open(context.Background(), store.Options{URL: path, Timeout: servicestest.Patience})
	if err != nil {
		return err
	}
	return db.Close()
})

// newWorldOn is a database without a Redis, patient as tests are that are about answers.
func newWorldOn(t *testing.T, url string) *world {
	t.Helper()
	return newWorldWith(t, store.Options{URL: url, Timeout: servicestest.Patience})
}

func newWorldWith(t *testing.T, opt store.Options) *world {
	t.Helper()
	servicestest.MeasureDisk()
	db, err := store.Open(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{store: db, path: opt.URL}
}

// exec changes the SQLite file, not through the store.
func (w *world) exec(t *testing.T, query string) {
	t.Helper()
	raw, err := sql.Open("sqlite", w.path)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetMaxOpenConns(1)
	if _, err := raw.ExecContext(t.Context(), "PRAGMA busy_timeout = 20000; "+query); err != nil {
		t.Fatal(err)
	}
}

// signUp creates a user.
func (w *world) signUp(t *testing.T) models.Credentials {
	t.Helper()
	email := fmt.Sprintf("user%d@example.com", w.users.Add(1))
	if _, err := w.store.CreateUser(t.Context(), email, "hash", []string{models.RoleEditor}); err != nil {
		t.Fatal(err)
	}
	credentials, err := w.store.Credentials(t.Context(), email)
	if err != nil {
		t.Fatal(err)
	}
	return credentials
}

// changePassword gives a session a new token together with a new password.
func (w *world) changePassword(ctx context.Context, i instance, s models.Session, epoch int64) (string, models.Session, error) {
	return i.Rotate(ctx, s, epoch, func(next models.Session) error {
		return w.store.ChangePassword(ctx, s.User.ID, epoch, "another hash", next)
	})
}

// forgetTheLog lets a day pass for the log, so that its entries are cleaned up.
func (w *world) forgetTheLog(t *testing.T) {
	t.Helper()
	w.exec(t, "UPDATE revocations SET at = at - 90000000000")
	if _, err := w.store.CleanUp(t.Context(), time.Now(), 1_000); err != nil {
		t.Fatal(err)
	}
	if log, err := w.store.Revocations(t.Context(), 0, time.Time{}); err != nil || len(log.Entries) > 0 || log.Head == 0 {
		t.Fatalf("%d entries are left of %d, %v", len(log.Entries), log.Head, err)
	}
}

// testDB is an instance's way to the database, which a test can cut, watch and delay.
type testDB struct {
	session.Database
	gone                         atomic.Bool
	full                         atomic.Bool // it refuses writes of activity, and reads go on
	reads, touches, notes, polls atomic.Int64
	// afterRead runs between the read of a row and its return.
	afterRead atomic.Pointer[func()]
}

var errGone = fmt.Errorf("the test took the database away: %w", models.ErrUnavailable)

func (d *testDB) Session(ctx context.Context, hash string, now time.Time) (models.Session, error) {
	d.reads.Add(1)
	if d.gone.Load() {
		return models.Session{}, errGone
	}
	s, err := d.Database.Session(ctx, hash, now)
	if pause := d.afterRead.Load(); pause != nil {
		(*pause)()
	}
	return s, err
}

func (d *testDB) TouchSessions(ctx context.Context, seen []models.Activity) ([]string, error) {
	d.touches.Add(1)
	if d.gone.Load() || d.full.Load() {
		return nil, errGone
	}
	return d.Database.TouchSessions(ctx, seen)
}

func (d *testDB) NoteChange(ctx context.Context, hash string) error {
	d.notes.Add(1)
	if d.gone.Load() {
		return errGone
	}
	return d.Database.NoteChange(ctx, hash)
}

func (d *testDB) Revocations(ctx context.Context, after int64, since time.Time) (models.Revocations, error) {
	d.polls.Add(1)
	if d.gone.Load() {
		return models.Revocations{}, errGone
	}
	return d.Database.Revocations(ctx, after, since)
}

// instance is one gatehouse process as far as sessions go.
type instance struct {
	*session.Cache
	db    *testDB
	redis *redis.Client
}

// instance starts one that reaches Redis by rdb.
func (w *world) instance(t *testing.T, rdb *redis.Client, opt session.Options) instance {
	t.Helper()
	db := &testDB{Database: w.store}
	if opt.Logger == nil {
		opt.Logger = redistest.Quiet()
	}
	opt.Secrets = []string{"a secret of at least thirty-two bytes"}
	opt.Watch, opt.Budget = w.store.WatchRevocations, w.store.WithinBudget
	cache, err := session.NewCache(rdb, db, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cache.Close(context.Background()); err != nil && !db.gone.Load() {
			t.Error(err)
		}
	})
	servicestest.Eventually(t, cache.Loaded, "the log is not read")
	return instance{cache, db, rdb}
}

// one is an instance for tests that are about answers, not about how quickly Redis fails.
func (w *world) one(t *testing.T) instance {
	t.Helper()
	return w.instance(t, redistest.New(t, w.server.Addr), session.Options{MaxPerUser: 1000})
}

// withoutRedis is an instance that does not use the world's Redis.
func (w *world) withoutRedis(t *testing.T) instance {
	t.Helper()
	return w.instance(t, redistest.Start(t, redis.Options{Disabled: true}), session.Options{})
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

// end ends one session, acknowledged.
func end(t *testing.T, i instance, s models.Session) {
	t.Helper()
	if err := i.End(t.Context(), models.Ending{Hash: s.Hash}); err != nil {
		t.Fatal(err)
	}
}

func save(t *testing.T, i instance, s models.Session, data string) models.Session {
	t.Helper()
	saved, err := i.SaveData(t.Context(), s, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return saved
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

// refusedInTime is refused, within what is promised of an end that was acknowledged elsewhere.
func refusedInTime(t *testing.T, i instance, token string, acknowledged time.Time) {
	t.Helper()
	for {
		_, err := i.Get(t.Context(), token)
		took := time.Since(acknowledged)
		switch {
		case errors.Is(err, models.ErrNotFound):
			return
		case err != nil:
			t.Fatalf("get an ended session: %v", err)
		case took > promised+servicestest.Slack(acknowledged):
			t.Fatalf("accepted %v after its end", took)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// readsInTime finds the data that another instance saved.
func readsInTime(t *testing.T, i instance, token, data string) {
	t.Helper()
	servicestest.Within(t, promised, func() bool { return string(mustGet(t, i, token).Data) == data }, "old data is read")
}

// warmForLong returns when an instance keeps a session in memory beyond the 2 s that it may
// without reports of changes.
func warmForLong(t *testing.T, i instance, token string) {
	t.Helper()
	servicestest.Eventually(t, func() bool { mustGet(t, i, token); return i.Tracks(token) }, "Redis does not report changes")
}

// pauseNextRead stops the next read of a row, after the database has answered, until goOn.
func (i instance) pauseNextRead() (waitForRead func(*testing.T), goOn func()) {
	var reached atomic.Bool
	resume := make(chan struct{})
	var first atomic.Bool
	pause := func() {
		if first.CompareAndSwap(false, true) {
			reached.Store(true)
			<-resume
		}
	}
	i.db.afterRead.Store(&pause)
	waitForRead = func(t *testing.T) {
		t.Helper()
		servicestest.Eventually(t, reached.Load, "no row is read")
	}
	return waitForRead, func() { close(resume) }
}
