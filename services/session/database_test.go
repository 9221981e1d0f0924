package session_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// Both databases keep what session.Database says; a new one can be added here.
func TestDatabaseContract(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) (session.Database, models.Session){
		"store": func(t *testing.T) (session.Database, models.Session) {
			w := newWorldOn(t, newDatabase(t))
			return w.store, of(w.signUp(t))
		},
		"store on PostgreSQL": func(t *testing.T) (session.Database, models.Session) {
			w := newWorldOn(t, servicestest.StartPostgres(t))
			return w.store, of(w.signUp(t))
		},
		"map": func(*testing.T) (session.Database, models.Session) {
			return newMapDatabase(), models.Session{User: models.UserRef{ID: "1"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, user := open(t)
			holdToContract(t, db, user)
		})
	}
}

func holdToContract(t *testing.T, db session.Database, user models.Session) {
	ctx, now, userID := t.Context(), time.Now().UTC().Truncate(time.Microsecond), user.User.ID
	wantError := func(what string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	named := func(hash string) models.Session {
		s := user
		now = now.Add(time.Millisecond)
		s.Hash, s.ID, s.CreatedAt, s.LastSeen, s.IdleAt, s.ExpiresAt = hash, "id-"+hash, now, now, now.Add(time.Hour), now.Add(2*time.Hour)
		return s
	}
	wantLive := func(what, want string) {
		t.Helper()
		list, err := db.SessionsOf(ctx, userID, now)
		var hashes []string
		for _, s := range list {
			hashes = append(hashes, s.Hash)
			if one, err := db.Session(ctx, s.Hash, now); err != nil || one.ID != s.ID || one.User.ID != userID {
				t.Errorf("%s: %s alone is %+v, %v", what, s.Hash, one, err)
			}
		}
		if got := strings.Join(hashes, " "); got != want || err != nil {
			t.Errorf("%s: live are %q, %v, want %q", what, got, err, want)
		}
	}

	for i, hash := range []string{"a", "b", "c", "d"} {
		if ended, err := db.InsertSession(ctx, named(hash), 3); err != nil || ended != i/3 {
			t.Fatalf("insert %s: %d ended, %v", hash, ended, err)
		}
	}
	wantLive("beyond the limit the oldest ends", "d c b")
	stale := named("e")
	stale.Epoch++
	_, err := db.InsertSession(ctx, stale, 3)
	wantError("insert with another epoch", err, models.ErrStale)

	later := now.Add(30 * time.Minute)
	written, err := db.TouchSessions(ctx, []models.Activity{{Hash: "a", Since: later, LastSeen: later, IdleAt: later.Add(time.Hour)}, {Hash: "b", Since: later, LastSeen: later, IdleAt: later.Add(time.Hour)}})
	if strings.Join(written, " ") != "b" || err != nil {
		t.Errorf("touched %q, %v", written, err)
	}
	if s, err := db.Session(ctx, "b", now.Add(80*time.Minute)); err != nil || !s.LastSeen.Equal(later) {
		t.Errorf("a session that was used is %+v, %v", s, err)
	}
	_, err = db.Session(ctx, "c", now.Add(80*time.Minute))
	wantError("a session that was not used", err, models.ErrNotFound)

	always := []models.Activity{{Hash: "b", Since: now.Add(90 * time.Minute), LastSeen: now.Add(100 * time.Minute), IdleAt: now.Add(3 * time.Hour)}}
	if written, err := db.TouchSessions(ctx, always); len(written) != 0 || err != nil {
		t.Errorf("first used past the idle timeout it touched %q, %v", written, err)
	}
	always[0].Since = now.Add(80 * time.Minute)
	if written, err := db.TouchSessions(ctx, always); len(written) != 1 || err != nil {
		t.Errorf("used before the idle timeout, and past it, it touched %q, %v", written, err)
	}
	always[0].LastSeen = now.Add(2 * time.Hour)
	if written, err := db.TouchSessions(ctx, always); len(written) != 0 || err != nil {
		t.Errorf("past the absolute timeout it touched %q, %v", written, err)
	}

	if version, err := db.SaveSessionData(ctx, "c", 0, []byte("x")); version != 1 || err != nil {
		t.Errorf("saved version %d, %v", version, err)
	}
	_, err = db.SaveSessionData(ctx, "c", 0, []byte("y"))
	wantError("save an old version", err, models.ErrStale)
	_, err = db.SaveSessionData(ctx, "a", 0, []byte("y"))
	wantError("save in an ended session", err, models.ErrNotFound)

	wantError("end an ended one", db.EndSessions(ctx, models.Ending{Hash: "a"}), models.ErrNotFound)
	wantError("end none", db.EndSessions(ctx, models.Ending{}), models.ErrNotFound)
	wantError("end one", db.EndSessions(ctx, models.Ending{UserID: userID, ID: "id-b"}), nil)
	wantLive("one has ended", "d c")
	anonymous := named("n")
	anonymous.User, anonymous.Roles, anonymous.Epoch = models.UserRef{}, nil, 0
	if ended, err := db.InsertSession(ctx, anonymous, 3); err != nil || ended != 0 {
		t.Errorf("insert an anonymous one: %d ended, %v", ended, err)
	}
	wantError("keep an anonymous one", db.EndSessions(ctx, models.Ending{UserID: userID, Keep: "n"}), models.ErrNotFound)
	wantLive("none has ended", "d c")
	wantError("end the others", db.EndSessions(ctx, models.Ending{UserID: userID, Keep: "c"}), nil)
	wantLive("the others have ended", "c")
	_, err = db.InsertSession(ctx, named("f"), 3)
	wantError("a sign-in from before that", err, models.ErrStale)
	wantError("keep an ended one", db.EndSessions(ctx, models.Ending{Everybody: true, Keep: "d"}), models.ErrNotFound)
	wantError("end all but one", db.EndSessions(ctx, models.Ending{Everybody: true, Keep: "c"}), nil)
	wantLive("that one goes on", "c")
	wantError("end all", db.EndSessions(ctx, models.Ending{Everybody: true}), nil)
	wantLive("all have ended", "")

	wantError("note", db.NoteChange(ctx, ""), nil)
	log, err := db.Revocations(ctx, 0, time.Time{})
	if err != nil || len(log.Entries) == 0 || log.Entries[len(log.Entries)-1].Seq != log.Head || !log.Entries[len(log.Entries)-1].Everybody {
		t.Fatalf("the log is %+v, %v", log, err)
	}
	for i, entry := range log.Entries {
		if entry.Seq != int64(i+1) || (entry.SessionHash != "") == (entry.UserID != "" || entry.Everybody) {
			t.Errorf("entry %d is %+v", i+1, entry)
		}
	}
	if last, err := db.Revocations(ctx, log.Head-1, time.Time{}); err != nil || len(last.Entries) != 1 || last.Head != log.Head || last.Nonce != log.Nonce {
		t.Errorf("the last entry: %+v, %v", last, err)
	}
	if none, err := db.Revocations(ctx, 0, time.Now().Add(time.Hour)); err != nil || len(none.Entries) != 0 || none.Head != log.Head {
		t.Errorf("since an hour from now: %+v, %v", none, err)
	}
}
