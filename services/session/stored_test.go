package session_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// Neither Redis nor the files of the database have a token, in whatever form.
func TestSessionTokenIsNotStored(t *testing.T) {
	server := servicestest.StartRedis(t)
	i := startInstances(t, 1, server, session.Options{})[0]
	token, s := signIn(t, i, signUp(t, i.db, "ann@example.com"))
	servicestest.Within(t, 2*time.Second, func() bool {
		_ = mustGet(t, i, token)
		return server.Do("KEYS", "*session:*") != ""
	}, "no copy in Redis")
	if keys := server.Do("KEYS", "*session:*"); keys != "test:session:"+s.Hash {
		t.Errorf("keys = %q", keys)
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	forms := map[string][]byte{
		"as handed out": []byte(token), "in bytes": raw, "in hex": []byte(hex.EncodeToString(raw)),
		"in base64": []byte(base64.RawStdEncoding.EncodeToString(raw)), "in base64 once more": []byte(base64.RawStdEncoding.EncodeToString([]byte(token))),
	}
	look := func(where string, in []byte) {
		t.Helper()
		for form, secret := range forms {
			if bytes.Contains(in, secret) {
				t.Errorf("%s has the token %s", where, form)
			}
		}
	}
	for _, key := range strings.Fields(server.Do("KEYS", "*")) {
		look("the key "+key, []byte(key))
		look("the value of "+key, []byte(server.Do("GET", key)))
	}
	var files []byte
	for _, name := range []string{i.db.path, i.db.path + "-wal"} {
		content, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		look(name, content)
		files = append(files, content...)
	}
	if !bytes.Contains(files, []byte(s.Hash)) {
		t.Error("the files do not even have the hash: looked in the wrong place")
	}
}

// One query serves all callers that ask before it is sent. If the first of them leaves, the
// others get the answer all the same. Those that ask after it was sent share one more.
func TestSessionReadsAreShared(t *testing.T) {
	inFakeTime(t, 2, session.Options{}, func(t *testing.T, all []instance) {
		a, b := all[0], all[1]
		token, s := signIn(t, a, signUp(t, a.db, "ann@example.com"))
		slow := func() { time.Sleep(100 * time.Millisecond) }
		b.db.afterRead.Store(&slow)
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := b.Get(ctx, token)
			left <- err
		}()
		pass(50 * time.Millisecond)
		const others = 49
		found := make(chan error, others)
		for range others {
			go func() {
				got, err := b.Get(t.Context(), token)
				if err == nil && got.ID != s.ID {
					err = errors.New("another session")
				}
				found <- err
			}()
		}
		pass(10 * time.Millisecond)
		leave()
		if err := <-left; !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("the caller that left: %v", err)
		}
		for range others {
			if err := <-found; err != nil {
				t.Error(err)
			}
		}
		if n := b.db.reads.Load(); n > 2 {
			t.Errorf("%d queries for %d that ask at once, want 2", n, 1+others)
		}
	})
}

// A read that hangs for longer than the log keeps anything brings back no session
// that ended meanwhile.
func TestSessionFillLaterThanTheLogDoesNotRevive(t *testing.T) {
	t.Parallel()
	opt := session.Options{IdleTimeout: 1000 * time.Hour, AbsoluteTimeout: 1000 * time.Hour}
	inFakeTime(t, 1, opt, func(t *testing.T, all []instance) {
		i := all[0]
		token, s := signIn(t, i, signUp(t, i.db, "ann@example.com"))
		pass(3 * time.Second) // the copy in memory is too old: the row is read
		var once sync.Once
		hang := func() { once.Do(func() { time.Sleep(25 * time.Hour) }) }
		i.db.afterRead.Store(&hang)
		filled := make(chan struct{})
		go func() {
			defer close(filled)
			_, _ = i.Get(t.Context(), token) // it asked before the end
		}()
		pass(time.Second)
		if err := i.End(t.Context(), models.Ending{Hash: s.Hash}); err != nil {
			t.Fatal(err)
		}
		i.db.gone.Store(true) // for most of the time, or a day of polls takes a minute
		pass(24*time.Hour + 45*time.Minute)
		i.db.gone.Store(false)
		<-filled
		if log, err := i.db.Revocations(t.Context(), 0, time.Time{}); err != nil || len(log.Entries) != 0 {
			t.Fatalf("the log still has %+v, %v", log.Entries, err)
		}
		refused(t, i, token)
	})
}

// On PostgreSQL an end reaches the others far sooner than their next poll, also
// without Redis.
func TestSessionEndsAreToldByPostgres(t *testing.T) {
	url := servicestest.StartPostgres(t)
	start := func() instance {
		return startInstance(t, url, redistest.Start(t, redis.Options{Disabled: true}), session.Options{})
	}
	here, there := start(), start()
	ann := signUp(t, here.db, "ann@example.com")
	end := func() time.Duration {
		t.Helper()
		token, s := signIn(t, here, ann)
		mustGet(t, there, token)
		if err := here.End(t.Context(), models.Ending{Hash: s.Hash}); err != nil {
			t.Fatal(err)
		}
		ended := time.Now()
		servicestest.Within(t, revokeBound, func() bool {
			_, err := there.Get(t.Context(), token)
			return errors.Is(err, models.ErrNotFound)
		}, "an ended session lives elsewhere")
		return time.Since(ended)
	}
	end() // it may not listen yet
	const rounds = 6
	slow := 0
	for range rounds {
		if end() > 200*time.Millisecond {
			slow++
		}
	}
	if slow > 1 {
		t.Errorf("%d of %d took longer than 200 ms: the other instance got no hint", slow, rounds)
	}
}
