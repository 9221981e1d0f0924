package store_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

// writes are one of each kind that stores something, in an order in which all succeed.
func writes(s *store.Store, user models.User) map[string]func(ctx context.Context) error {
	now := time.Now()
	session := func(hash string) models.Session {
		return models.Session{
			Hash: hash, ID: hash, User: models.UserRef{ID: user.ID}, CreatedAt: now, LastSeen: now,
			IdleAt: now.Add(time.Hour), ExpiresAt: now.Add(time.Hour),
		}
	}
	return map[string]func(ctx context.Context) error{
		"process": func(ctx context.Context) error { return errorOf(s.CreateProcess(ctx, user.ID, fields("x"))) },
		"change": func(ctx context.Context) error {
			return errorOf(s.UpdateProcess(ctx, "1", user.ID, fields("y"), models.WriteGuard{GrantedVersion: 1}))
		},
		"deletion": func(ctx context.Context) error {
			return s.DeleteProcess(ctx, "1", user.ID, models.WriteGuard{GrantedVersion: 1})
		},
		"draft": func(ctx context.Context) error {
			return errorOf(s.SaveDraft(ctx, "1", user.ID, draftFrom(1, "x"), time.Time{}))
		},
		"draft deletion": func(ctx context.Context) error { return s.DeleteDraft(ctx, "1", user.ID, time.Time{}) },
		"refusal": func(ctx context.Context) error {
			return s.AddRefusals(ctx, []models.Refusal{{RequestID: "r", User: models.UserRef{ID: user.ID}, Resource: "process:1", Save: true}})
		},
		"user": func(ctx context.Context) error { return errorOf(s.CreateUser(ctx, "bob@example.com", "", nil)) },
		"user change": func(ctx context.Context) error {
			return errorOf(s.UpdateUser(ctx, user.ID, models.UserPatch{Roles: []string{"viewer"}}))
		},
		"user deletion": func(ctx context.Context) error { return s.DeleteUser(ctx, user.ID) },
		"session":       func(ctx context.Context) error { return errorOf(s.InsertSession(ctx, models.Session{Hash: "h"}, 1)) },
		"user session":  func(ctx context.Context) error { return errorOf(s.InsertSession(ctx, session("u"), 1)) },
		"touch": func(ctx context.Context) error {
			_, err := s.TouchSessions(ctx, []models.Activity{{Hash: "kept", Since: now, LastSeen: now, IdleAt: now.Add(time.Hour)}})
			return err
		},
		"touches": func(ctx context.Context) error {
			return errorOf(s.TouchSessions(ctx, []models.Activity{{Hash: "kept", Since: now, LastSeen: now, IdleAt: now.Add(time.Hour)}}))
		},
		"session data": func(ctx context.Context) error { return errorOf(s.SaveSessionData(ctx, "kept", 0, []byte("x"))) },
		"end":          func(ctx context.Context) error { return s.EndSessions(ctx, models.Ending{Hash: "kept"}) },
		"end by id":    func(ctx context.Context) error { return s.EndSessions(ctx, models.Ending{UserID: user.ID, ID: "kept"}) },
		"end of user":  func(ctx context.Context) error { return s.EndSessions(ctx, models.Ending{UserID: user.ID}) },
		"end others": func(ctx context.Context) error {
			return s.EndSessions(ctx, models.Ending{UserID: user.ID, Keep: "kept"})
		},
		"end all":  func(ctx context.Context) error { return s.EndSessions(ctx, models.Ending{Everybody: true}) },
		"password": func(ctx context.Context) error { return s.ChangePassword(ctx, user.ID, 1, "new", session("kept")) },
		"note":     func(ctx context.Context) error { return s.NoteChange(ctx, "h") },
		"audit":    func(ctx context.Context) error { return s.AddAudit(ctx, models.AuditEntry{Action: "sign-in"}) },
		"network":  func(ctx context.Context) error { return s.RememberNetwork(ctx, user.ID, "192.0.2.1", now) },
		"setting":  func(ctx context.Context) error { return errorOf(s.Setting(ctx, "key", "value")) },
		"clean up": func(ctx context.Context) error { return errorOf(s.CleanUp(ctx, now, 10)) },
	}
}

// The file of a running instance is removed or replaced in every way: no write is
// acknowledged that a start would not find, readiness knows, and one line says so.
func TestSQLiteFileGone(t *testing.T) {
	const name, link = "data/gate.db", "link.db"
	move := func(from, to string) func(t *testing.T) {
		return func(t *testing.T) { check(t, os.Rename(from, to)) }
	}
	remove := func(paths ...string) func(t *testing.T) {
		return func(t *testing.T) {
			for _, path := range paths {
				check(t, os.Remove(path))
			}
		}
	}
	for what, row := range map[string]struct {
		url          string
		gone, mended func(t *testing.T) // nil: only a restart mends it
	}{
		"removed":              {name, remove(name, name+"-wal", name+"-shm"), nil},
		"file alone removed":   {name, remove(name), nil},
		"journal removed":      {name, remove(name + "-wal"), nil},
		"index removed":        {name, remove(name + "-shm"), nil},
		"folder removed":       {name, func(t *testing.T) { check(t, os.RemoveAll("data")) }, nil},
		"moved and back":       {name, move(name, "elsewhere.db"), move("elsewhere.db", name)},
		"journal and back":     {name, move(name+"-wal", "wal"), move("wal", name+"-wal")},
		"folder and back":      {name, move("data", "elsewhere"), move("elsewhere", "data")},
		"replaced and back":    {name, func(t *testing.T) { check(t, os.Rename(name, "old.db")); copyFile(t, "old.db", name) }, move("old.db", name)},
		"replaced by a copy":   {name, func(t *testing.T) { copyFile(t, name, "copy.db"); check(t, os.Rename("copy.db", name)) }, nil},
		"replaced by another":  {name, func(t *testing.T) { open(t, "other.db"); check(t, os.Rename("other.db", name)) }, nil},
		"replaced by a folder": {name, func(t *testing.T) { check(t, os.Remove(name)); check(t, os.Mkdir(name, 0o700)) }, nil},
		"link removed":         {link, remove(link), func(t *testing.T) { check(t, os.Symlink(name, link)) }},
		"link to another": {link, func(t *testing.T) {
			open(t, "other.db")
			check(t, os.Remove(link))
			check(t, os.Symlink("other.db", link))
		}, func(t *testing.T) { check(t, os.Remove(link)); check(t, os.Symlink(name, link)) }},
		// The start would look for the journal beside the file.
		"moved without its journal": {name, func(t *testing.T) { check(t, os.Rename(name, "alone.db")); check(t, os.Symlink("../alone.db", name)) },
			func(t *testing.T) { check(t, os.Remove(name)); check(t, os.Rename("alone.db", name)) }},
		"folder of a link moved": {link, move("data", "elsewhere"), move("elsewhere", "data")},
	} {
		t.Run(what, func(t *testing.T) {
			t.Chdir(t.TempDir())
			check(t, os.Mkdir("data", 0o700))
			writeFile(t, name, "")
			check(t, os.Symlink(name, link))
			var told servicestest.LogLines
			s := openWith(t, store.Options{URL: row.url, MaxConns: 3, Logger: slog.New(slog.NewTextHandler(&told, nil))})
			user := newUser(t, s, "ann@example.com", "editor")
			kept := must(s.CreateProcess(t.Context(), user.ID, fields("kept")))
			check(t, errorOf(s.InsertSession(t.Context(), models.Session{Hash: "kept", ID: "kept", User: models.UserRef{ID: user.ID}, Epoch: 1,
				IdleAt: time.Now().Add(time.Hour), ExpiresAt: time.Now().Add(time.Hour)}, 9)))
			home := must(os.Getwd())
			t.Chdir(t.TempDir()) // a relative path means the same file wherever the process goes
			check(t, s.Ping(t.Context()))
			t.Chdir(home)

			row.gone(t)
			_, _ = s.Revocations(t.Context(), 0, time.Time{}) // what each instance does every second
			if got := told.With("level=ERROR"); len(got) != 1 || !strings.Contains(got[0], filepath.Base(row.url)) || !strings.Contains(got[0], "restart") {
				t.Errorf("the log has %q", got)
			}
			wantError(t, s.Ping(t.Context()), models.ErrNotWritable)
			var wg sync.WaitGroup
			for kind, write := range writes(s, user) {
				wg.Go(func() {
					if err := write(t.Context()); !errors.Is(err, models.ErrUnavailable) {
						t.Errorf("%s: %v", kind, err)
					}
				})
			}
			wg.Wait()
			if n := len(told.With("level=ERROR")); n != 1 {
				t.Errorf("%d lines tell of it", n)
			}
			if row.mended == nil {
				return
			}
			row.mended(t)
			check(t, s.Ping(t.Context()))
			if got := told.With("again"); len(got) != 1 {
				t.Errorf("the log has %q of its return", got)
			}
			later := must(s.CreateProcess(t.Context(), user.ID, fields("later")))
			check(t, s.Close())
			s = open(t, row.url)
			for _, p := range []models.Process{kept, later} {
				check(t, errorOf(s.Process(t.Context(), p.ID)))
			}
		})
	}
}

// Instances in several processes share a file, and each may be the first to come or
// the last to leave: none sees that as a change.
func TestSQLiteFileStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	s := open(t, path)
	for range 5 {
		other, err := store.Open(t.Context(), store.Options{URL: path, Timeout: servicestest.Patience})
		check(t, err)
		newID := must(other.CreateProcess(t.Context(), "", fields("x"))).ID
		check(t, other.Close())
		check(t, errorOf(s.UpdateProcess(t.Context(), newID, "", fields("y"), models.WriteGuard{GrantedVersion: 1})))
		check(t, s.Ping(t.Context()))
	}
}

// A file that goes while many write: each acknowledged process is in it.
func TestSQLiteFileGoesUnderLoad(t *testing.T) {
	dir := t.TempDir()
	path, moved := filepath.Join(dir, "test.db"), filepath.Join(dir, "moved.db")
	s := open(t, path)
	stop := make(chan struct{})
	var acknowledged sync.Map
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if p, err := s.CreateProcess(t.Context(), "", fields("x")); err == nil {
					acknowledged.Store(p.ID, nil)
				}
			}
		})
	}
	written := func() (n int) {
		acknowledged.Range(func(any, any) bool { n++; return true })
		return n
	}
	for range 5 {
		before := written()
		servicestest.Eventually(t, func() bool { return written() > before+5 }, "nothing is written")
		check(t, os.Rename(path, moved))
		wantError(t, s.Ping(t.Context()), models.ErrNotWritable)
		check(t, os.Rename(moved, path))
	}
	close(stop)
	wg.Wait()
	check(t, s.Close())
	s = open(t, path)
	acknowledged.Range(func(id, _ any) bool {
		if err := errorOf(s.Process(t.Context(), id.(string))); err != nil {
			t.Errorf("acknowledged: %v", err)
		}
		return true
	})
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	check(t, err)
	writeFile(t, to, string(content))
}
