package session_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// A session from its begin to its end, whatever is beneath.
func TestJourney(t *testing.T) {
	t.Parallel()
	sqlite := newWorldOn(t, newDatabase(t))
	t.Run("SQLite and Redis", func(t *testing.T) { journey(t, sqlite, redistest.Of(t, "redis")) })
	t.Run("SQLite and the embedded Redis", func(t *testing.T) { journey(t, sqlite, redistest.Of(t, "embedded")) })
	t.Run("SQLite alone", func(t *testing.T) { journey(t, sqlite, redistest.Start(t, redis.Options{Disabled: true})) })
	t.Run("PostgreSQL and Redis", func(t *testing.T) {
		journey(t, newWorldOn(t, servicestest.StartPostgres(t)), redistest.Of(t, "redis"))
	})
}

func journey(t *testing.T, w *world, rdb *redis.Client) {
	i := w.instance(t, rdb, session.Options{})
	ann := w.signUp(t)
	token, begun := signIn(t, i, ann)
	if len(token) != 43 || begun.ID == "" || begun.ID == token || begun.Hash == token || begun.User.Email != ann.Email {
		t.Errorf("begun = %+v", begun)
	}
	if got := mustGet(t, i, token); got.ID != begun.ID || got.Roles[0] != models.RoleEditor || !got.ExpiresAt.Equal(begun.CreatedAt.Add(12*time.Hour)) {
		t.Errorf("got = %+v", got)
	}
	saved := save(t, i, begun, "basket")
	if string(saved.Data) != "basket" || saved.Version != begun.Version+1 {
		t.Fatalf("saved = %+v", saved)
	}
	if got := mustGet(t, i, token); string(got.Data) != "basket" {
		t.Errorf("data = %q", got.Data)
	}
	now, err := i.SaveData(t.Context(), begun, []byte("old"))
	if !errors.Is(err, models.ErrStale) || string(now.Data) != "basket" {
		t.Errorf("stale save: %+v, %v", now, err)
	}
	refreshed, err := i.Refresh(t.Context(), saved)
	if err != nil || !refreshed.IdleAt.After(begun.IdleAt) || string(refreshed.Data) != "basket" {
		t.Errorf("refresh: %+v, %v", refreshed, err)
	}
	signIn(t, i, ann)
	if n, err := i.Count(t.Context(), ann.ID); n != 2 || err != nil {
		t.Errorf("count = %d, %v", n, err)
	}
	if list, err := i.List(t.Context(), ann.ID); len(list) != 2 || err != nil {
		t.Errorf("list = %+v, %v", list, err)
	}
	if err := i.Delete(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	refused(t, i, token)
	if err := i.Delete(t.Context(), token); !errors.Is(err, models.ErrNotFound) {
		t.Errorf("delete again: %v", err)
	}
	if _, err := i.SaveData(t.Context(), saved, []byte("x")); !errors.Is(err, models.ErrNotFound) {
		t.Errorf("save an ended session: %v", err)
	}
	if _, err := i.Refresh(t.Context(), saved); !errors.Is(err, models.ErrNotFound) {
		t.Errorf("refresh an ended session: %v", err)
	}
	for _, bad := range []string{"", "x", token + "\n", token[:42], "!" + token[1:]} {
		reads := i.db.reads.Load()
		refused(t, i, bad)
		if i.db.reads.Load() != reads {
			t.Errorf("%q was looked up", bad)
		}
	}
}

// Neither Redis nor the files of the database have a token, in whatever form.
func TestTokenIsNotStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := w.one(t)
	token, s := signIn(t, i, w.signUp(t))
	if keys := w.server.Do("KEYS", "*session:*"); keys != "test:session:"+s.Hash {
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
	for _, key := range strings.Fields(w.server.Do("KEYS", "*")) {
		look("the key "+key, []byte(key))
		look("the value of "+key, []byte(w.server.Do("GET", key)))
	}
	var files []byte
	for _, name := range []string{w.path, w.path + "-wal"} {
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
