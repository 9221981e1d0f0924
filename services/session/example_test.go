package session_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/redis"
	"gatehouse/services/session"
	"gatehouse/services/store"
)

// mapDatabase is a session.Database for one process, in memory.
type mapDatabase struct {
	mu       sync.Mutex
	sessions map[string]models.Session // by hash
	epochs   map[string]int64          // of users, 0 at first; one more ends their sessions
	log      []models.Revocation
}

func newMapDatabase() *mapDatabase {
	return &mapDatabase{sessions: map[string]models.Session{}, epochs: map[string]int64{}}
}

// write adds an entry to the log. The caller holds d.mu.
func (d *mapDatabase) write(entry models.Revocation) {
	entry.Seq, entry.At = int64(len(d.log)+1), time.Now()
	d.log = append(d.log, entry)
}

// live is called with d.mu held.
func (d *mapDatabase) live(hash string, at time.Time) (models.Session, bool) {
	s, ok := d.sessions[hash]
	return s, ok && s.Live(at) && s.Epoch == d.epochs[s.User.ID]
}

func (d *mapDatabase) InsertSession(_ context.Context, s models.Session, maxPerUser int) (ended int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.Epoch != d.epochs[s.User.ID] {
		return 0, models.ErrStale
	}
	d.sessions[s.Hash] = s
	all := d.of(s.User.ID, s.CreatedAt)
	if s.User.ID == "" || len(all) <= maxPerUser {
		return 0, nil
	}
	for _, old := range all[maxPerUser:] {
		d.end(old.Hash)
	}
	return len(all) - maxPerUser, nil
}

// end is called with d.mu held.
func (d *mapDatabase) end(hash string) {
	delete(d.sessions, hash)
	d.write(models.Revocation{SessionHash: hash})
}

func (d *mapDatabase) Session(_ context.Context, hash string, at time.Time) (models.Session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.live(hash, at)
	if !ok {
		return models.Session{}, models.ErrNotFound
	}
	return s, nil
}

// of is called with d.mu held.
func (d *mapDatabase) of(userID string, at time.Time) (all []models.Session) {
	for hash := range d.sessions {
		if s, ok := d.live(hash, at); ok && s.User.ID == userID {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b models.Session) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return all
}

func (d *mapDatabase) SessionsOf(_ context.Context, userID string, at time.Time) ([]models.Session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.of(userID, at), nil
}

func (d *mapDatabase) TouchSessions(_ context.Context, used []models.Activity) (written []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range used {
		if s, ok := d.live(u.Hash, u.Since); ok && u.LastSeen.Before(s.ExpiresAt) {
			if u.IdleAt.After(s.IdleAt) {
				s.LastSeen, s.IdleAt = u.LastSeen, u.IdleAt
			}
			d.sessions[u.Hash], written = s, append(written, u.Hash)
		}
	}
	return written, nil
}

func (d *mapDatabase) SaveSessionData(_ context.Context, hash string, version int64, data []byte) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.live(hash, time.Now())
	switch {
	case !ok:
		return 0, models.ErrNotFound
	case s.Version != version:
		return 0, models.ErrStale
	}
	s.Data, s.Version = data, version+1
	d.sessions[hash] = s
	return s.Version, nil
}

func (d *mapDatabase) EndSessions(_ context.Context, which models.Ending) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	ofUser := which.UserID != "" && which.ID == ""
	kept, keeps := d.live(which.Keep, time.Now())
	if which.Keep != "" && (!keeps || ofUser && kept.User.ID != which.UserID) {
		return models.ErrNotFound
	}
	found := ofUser || which.Everybody
	for hash, s := range d.sessions {
		named := which.Everybody || hash == which.Hash || (s.User.ID == which.UserID && (ofUser || s.ID == which.ID))
		if named && hash != which.Keep {
			d.end(hash)
			found = true
		}
	}
	if !found {
		return models.ErrNotFound
	}
	if ofUser { // so that a sign-in under way, which has read the epoch, fails
		d.epochs[which.UserID]++
		if keeps {
			kept.Epoch++
			d.sessions[kept.Hash] = kept
		}
	}
	return nil
}

func (d *mapDatabase) NoteChange(_ context.Context, hash string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.write(models.Revocation{SessionHash: hash, Everybody: hash == ""})
	return nil
}

func (d *mapDatabase) Revocations(_ context.Context, after int64, since time.Time) (models.Revocations, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	read := models.Revocations{Head: int64(len(d.log))}
	for _, entry := range d.log[min(max(0, after), read.Head):] {
		if !entry.At.Before(since) {
			read.Entries = append(read.Entries, entry)
		}
	}
	return read, nil
}

// An application brings its own Database and needs no Redis to begin with.
func Example() {
	ctx := context.Background()
	rdb := redis.New(redis.Options{Disabled: true})
	defer rdb.Close(ctx)
	sessions, err := session.NewCache(rdb, newMapDatabase(), session.Options{IdleTimeout: 20 * time.Minute})
	if err != nil {
		panic(err)
	}
	defer sessions.Close(ctx)

	token, _, err := sessions.Create(ctx, models.Session{User: models.UserRef{ID: "42", Email: "ann@example.com"}})
	if err != nil {
		panic(err)
	}
	found, err := sessions.Get(ctx, token)
	if err != nil {
		panic(err)
	}
	sessions.Touch(*found) // a request of the user is activity
	fmt.Println("signed in:", found.User.Email)

	if err := sessions.DeleteUser(ctx, "42"); err != nil {
		panic(err)
	}
	_, err = sessions.Get(ctx, token)
	fmt.Println("ended:", errors.Is(err, models.ErrNotFound))
	// Output:
	// signed in: ann@example.com
	// ended: true
}

// A sign-in reads the user's epoch with the password. Signing the user out everywhere raises
// it, so a sign-in that had read the password before does not come through.
func ExampleCache_DeleteUser() {
	ctx := context.Background()
	db, cache, done := exampleStore()
	defer done()
	passwords := services.NewPasswords()
	hash, err := passwords.Hash(ctx, "correct horse battery")
	if err != nil {
		panic(err)
	}
	user, err := db.CreateUser(ctx, "ann@example.com", hash, []string{models.RoleEditor})
	if err != nil {
		panic(err)
	}

	signIn := func(row models.Credentials, password string) (token string, err error) {
		ok, err := passwords.Matches(ctx, password, row.PasswordHash)
		if err != nil {
			return "", err
		}
		if !ok {
			return "", errors.New("wrong password")
		}
		token, _, err = cache.Create(ctx, models.Session{
			User: models.UserRef{ID: row.ID, Email: row.Email}, Roles: row.Roles, Epoch: row.Epoch,
		})
		return token, err
	}
	before, _ := db.Credentials(ctx, "ann@example.com") // password hash and epoch, from one row
	token, err := signIn(before, "correct horse battery")
	fmt.Println("signed in:", token != "", err)

	fmt.Println("signed out everywhere:", cache.DeleteUser(ctx, user.ID)) // the epoch is another one now
	_, err = cache.Get(ctx, token)
	fmt.Println("her session has ended:", errors.Is(err, models.ErrNotFound))
	_, err = signIn(before, "correct horse battery")
	fmt.Println("a sign-in that began before:", errors.Is(err, models.ErrStale))

	now, _ := db.Credentials(ctx, "ann@example.com")
	token, err = signIn(now, "correct horse battery")
	fmt.Println("signed in again:", token != "", err)
	// Output:
	// signed in: true <nil>
	// signed out everywhere: <nil>
	// her session has ended: true
	// a sign-in that began before: true
	// signed in again: true <nil>
}

// exampleStore is a SQLite file with users and sessions, and a cache in front without Redis.
func exampleStore() (*store.Store, *session.Cache, func()) {
	folder, err := os.MkdirTemp("", "sessions")
	if err != nil {
		panic(err)
	}
	db, err := store.Open(context.Background(), store.Options{URL: filepath.Join(folder, "sessions.db"), Timeout: 10 * time.Second})
	if err != nil {
		panic(err)
	}
	rdb := redis.New(redis.Options{Disabled: true, Logger: slog.New(slog.DiscardHandler)})
	cache, err := session.NewCache(rdb, db, session.Options{})
	if err != nil {
		panic(err)
	}
	return db, cache, func() {
		ctx := context.Background()
		_ = cache.Close(ctx)
		_ = rdb.Close(ctx)
		_ = db.Close()
		_ = os.RemoveAll(folder)
	}
}
