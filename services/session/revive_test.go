package session_test

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// A row read before an end, and stored as a copy long after it, revives nothing: neither where it
// was read nor, through Redis, elsewhere.
func TestLateFillDoesNotRevive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c := w.one(t), w.one(t), w.one(t)
	token, s := signIn(t, a, w.signUp(t))
	w.server.Do("FLUSHALL")

	waitForRead, goOn := b.pauseNextRead()
	filled := make(chan struct{})
	go func() {
		defer close(filled)
		_, _ = b.Get(t.Context(), token) // it began before the end, so either answer is right
	}()
	waitForRead(t)
	end(t, a, s)
	acknowledged := time.Now()
	b.Sync(t.Context())
	// A read that begins after the end is refused once b knows of it, even while the old query is
	// under way.
	const askers = 50
	var started sync.WaitGroup
	asked := make(chan error, askers)
	started.Add(askers)
	for range askers {
		go func() {
			started.Done()
			_, err := b.Get(t.Context(), token)
			asked <- err
		}()
	}
	started.Wait()
	goOn()
	<-filled
	for range askers {
		if err := <-asked; !errors.Is(err, models.ErrNotFound) {
			t.Errorf("asked after the end: %v", err)
		}
	}
	refused(t, a, token)
	refused(t, b, token)
	refusedInTime(t, c, token, acknowledged)
}

// A read that hangs for longer than the log keeps anything brings back no session that ended
// meanwhile.
func TestFillLaterThanTheLogDoesNotRevive(t *testing.T) {
	t.Parallel()
	inFakeTimeOnAStore(t, session.Options{IdleTimeout: time.Hour}, func(t *testing.T, w *world, i instance) {
		token, s := signIn(t, i, w.signUp(t))
		pass(3 * time.Second) // the copy in memory is too old: the row is read
		var once sync.Once
		hang := func() { once.Do(func() { time.Sleep(20 * time.Minute) }) }
		i.db.afterRead.Store(&hang)
		filled := make(chan struct{})
		go func() {
			defer close(filled)
			_, _ = i.Get(t.Context(), token) // it asked before the end
		}()
		pass(time.Second)
		end(t, i, s)
		i.db.gone.Store(true) // for most of the time, which saves a thousand polls
		pass(18 * time.Minute)
		i.db.gone.Store(false)
		w.forgetTheLog(t)
		pass(2 * time.Minute)
		<-filled
		refused(t, i, token)
	})
}

// Redis that comes back with copies from before the end revives nothing.
func TestOldCopyInRedisDoesNotRevive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.one(t), w.one(t)
	token, s := signIn(t, a, w.signUp(t))
	key := "test:session:" + s.Hash
	old := w.server.Do("GET", key)
	end(t, a, s)
	acknowledged := time.Now()
	w.server.Do("SET", key, old)
	refused(t, a, token)
	refusedInTime(t, b, token, acknowledged)
	// Nor does a copy that cannot be read, or says it is from the future.
	for _, copied := range []string{"", "x", "1 {", "0 " + `{"pos":999999,"id":"x","user":"1","idle":9999999999999999,"expires":9999999999999999}`} {
		w.server.Do("SET", key, copied)
		refused(t, a, token)
		refused(t, b, token)
	}
}

// Redis comes back from a dump older than the end, and an instance starts then.
func TestDumpRevivesNothing(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, newDatabase(t))
	w.server = servicestest.StartRedis(t, "--dir", t.TempDir(), "--dbfilename", "old.rdb")
	all := []instance{w.one(t), w.one(t)}
	ann := w.signUp(t)
	token, s := signIn(t, all[0], ann)
	valid, _ := signIn(t, all[0], ann)
	for _, i := range all {
		warmForLong(t, i, token)
		warmForLong(t, i, valid)
	}
	w.server.Do("SAVE")
	end(t, all[0], s)
	acknowledged := time.Now()
	w.server.Restart()
	if w.server.Do("EXISTS", "test:session:"+s.Hash) != "1" {
		t.Fatal("the old copy is not back")
	}
	refused(t, all[0], token)
	refusedInTime(t, all[1], token, acknowledged)
	for _, i := range append(all, w.one(t)) {
		servicestest.Eventually(t, i.redis.Available, "Redis is not used again")
		refused(t, i, token)
		mustGet(t, i, valid)
	}
}

// The database comes back from a backup: a session that began after it is not brought back by its
// copies, whether or not the log has grown since as far as it was. One from before the backup goes
// on.
func TestDatabaseRestored(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	for name, grown := range map[string]int{"the log is shorter": 0, "the log is as long": 1, "the log is longer": 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorldOn(t, newDatabase(t))
			i := w.instance(t, redistest.New(t, server.Addr), session.Options{})
			ann := w.signUp(t)
			before, _ := signIn(t, i, ann)
			backup := filepath.Join(t.TempDir(), "backup.db")
			w.exec(t, "VACUUM INTO '"+backup+"'")
			note := func() {
				t.Helper()
				if err := w.store.NoteChange(t.Context(), "another session"); err != nil {
					t.Fatal(err)
				}
			}
			note()
			i.Sync(t.Context())
			after, _ := signIn(t, i, ann)
			warmForLong(t, i, after)
			w.exec(t, "ATTACH '"+backup+"' AS backup; BEGIN IMMEDIATE; DELETE FROM sessions; INSERT INTO sessions SELECT * FROM backup.sessions;"+
				"DELETE FROM revocations; INSERT INTO revocations SELECT * FROM backup.revocations;"+
				"DELETE FROM revocation_head; INSERT INTO revocation_head SELECT * FROM backup.revocation_head; COMMIT; DETACH backup")
			restored := time.Now()
			for range grown {
				note()
			}
			refusedInTime(t, i, after, restored)
			for range 10 {
				refused(t, i, after)
				mustGet(t, i, before)
			}
		})
	}
}
