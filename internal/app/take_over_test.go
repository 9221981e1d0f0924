package app

import (
	"net/http"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// editingAnswer is what the routes of a lock answer about who had it and who may have it.
type editingAnswer struct {
	Type         string
	LockToken    string
	Fence        *int64
	ExpiresIn    int64
	LastActiveAt *time.Time
	TakeOver     *string
	TakeOverAt   *time.Time
	EndedBy      *struct {
		How    string
		By     *struct{ UserID, Email string }
		Reason string
		At     time.Time
	}
}

const save = `{"title":"t","status":"draft","description":""}`

// lost wants each use of a token to be refused, and returns what is told of the lock's end.
func (a *app) lost(t *testing.T, user, id, token string) (told editingAnswer) {
	t.Helper()
	for _, use := range []struct{ method, path, body string }{
		{http.MethodPut, "", save}, {http.MethodPost, "/lock/extend", ""}, {http.MethodDelete, "", ""}, {http.MethodDelete, "/lock", ""},
	} {
		told = decoded[editingAnswer](t, a.api(user, use.method, "/processes/"+id+use.path, use.body, "X-Lock-Token", token), http.StatusConflict)
		if told.Type != "/problems/lock-not-held" || told.EndedBy == nil || time.Since(told.EndedBy.At).Abs() > time.Minute {
			t.Fatalf("%s %s: %+v", use.method, use.path, told)
		}
	}
	return told
}

func TestWhoLostALockIsToldWhy(t *testing.T) {
	onTwo(t, losersAreTold)
}

// losersAreTold is what the user is told who lost a lock in each way, by the other instance.
func losersAreTold(t *testing.T, a, other *app) {
	admin, bob := a.signIn(t, "admin@example.com"), a.signIn(t, "bob@example.com")
	take := func(user, id, body string) string {
		t.Helper()
		return decoded[editingAnswer](t, a.api(user, http.MethodPost, "/processes/"+id+"/lock", body), http.StatusCreated).LockToken
	}
	want := func(token, user, how, by, reason string) {
		t.Helper()
		told := other.lost(t, user, "1", token).EndedBy
		if told.How != how || told.Reason != reason || (told.By == nil) != (by == "") || by != "" && (told.By.Email != by || told.By.UserID == "") {
			t.Errorf("%+v, want %s by %q for %q", told, how, by, reason)
		}
	}
	token := take(bob, "1", "")
	if w := a.api(admin, http.MethodDelete, "/locks/process:1?reason=on+holiday", ""); w.Code != http.StatusNoContent {
		t.Fatal(w.Code)
	}
	want(token, bob, models.LockForced, "admin@example.com", "on holiday")
	token = take(bob, "1", "")
	again := take(other.signIn(t, "bob@example.com"), "1", `{"takeOver":true,"reason":"at home"}`)
	want(token, bob, models.LockTakenOver, "bob@example.com", "at home")
	if w := a.api(bob, http.MethodDelete, "/processes/1/lock", "", "X-Lock-Token", again); w.Code != http.StatusNoContent {
		t.Fatal(w.Code)
	}
	if told := a.lost(t, bob, "1", again).EndedBy; told.How != models.LockReleased || told.By.Email != "bob@example.com" {
		t.Errorf("%+v", told)
	}
	want(again, bob, models.LockReleased, "bob@example.com", "")
	token = take(bob, "1", `{"ttl":1}`)
	servicestest.Eventually(t, func() bool {
		return a.api(bob, http.MethodGet, "/processes/1", "", "X-Lock-Token", token).Code == http.StatusOK &&
			decoded[struct{ IsLocked bool }](t, a.api(bob, http.MethodGet, "/processes/1/lock/status", ""), http.StatusOK).IsLocked == false
	}, "it does not expire")
	servicestest.Within(t, 2*time.Second, func() bool { // without Redis an instance finds that a little later
		w := other.api(bob, http.MethodPut, "/processes/1", save, "X-Lock-Token", token)
		return decoded[editingAnswer](t, w, http.StatusConflict).EndedBy != nil
	}, "nobody is told")
	want(token, bob, models.LockExpired, "", "")

	token = take(admin, "1", "")
	alice := a.signIn(t, "alice@example.com")
	me := decoded[struct{ User models.UserRef }](t, a.api(alice, http.MethodGet, "/auth/session", ""), http.StatusOK).User
	theirs := take(alice, "2", "")
	decoded[any](t, a.api(admin, http.MethodPatch, "/users/"+me.ID, `{"disabled":true}`), http.StatusOK)
	decoded[any](t, a.api(admin, http.MethodPatch, "/users/"+me.ID, `{"disabled":false}`), http.StatusOK)
	if told := other.lost(t, a.signIn(t, "alice@example.com"), "2", theirs).EndedBy; told.How != models.LockUserDisabled || told.By.Email != "admin@example.com" {
		t.Errorf("%+v", told)
	}
	// Nothing is told of what is not known: a forged token, and that of another process.
	for id, forged := range map[string]string{"1": "forged", "3": token} {
		if told := decoded[editingAnswer](t, a.api(admin, http.MethodPut, "/processes/"+id, save, "X-Lock-Token", forged), http.StatusConflict); told.EndedBy != nil {
			t.Errorf("%s: %+v", forged, told.EndedBy)
		}
	}
}

func TestTakeOverByTheAPI(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, map[string]string) *app{"with Redis": startApp, "Redis gone": startCutOff} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			isTakenOver(t, start(t, map[string]string{"LOCK_PROTECTION": "10s", "LOCK_MAX_HOLD": "50m"}))
		})
	}
}

func isTakenOver(t *testing.T, a *app) {
	alice, bob, admin := a.signIn(t, "alice@example.com"), a.signIn(t, "bob@example.com"), a.signIn(t, "admin@example.com")
	me := decoded[struct{ User models.UserRef }](t, a.api(bob, http.MethodGet, "/auth/session", ""), http.StatusOK).User
	viewer := decoded[struct{ ID string }](t, a.api(admin, http.MethodPost, "/users", `{"email":"v@example.com","password":"a long password","roles":["viewer"]}`), http.StatusCreated)
	status := func(user string) editingAnswer {
		t.Helper()
		return decoded[editingAnswer](t, a.api(user, http.MethodGet, "/processes/1/lock/status", ""), http.StatusOK)
	}
	if free := status(bob); free.TakeOver != nil || free.LastActiveAt != nil {
		t.Errorf("free: %+v", free)
	}
	granted := decoded[editingAnswer](t, a.api(alice, http.MethodPost, "/processes/1/lock", `{"ttl":3600}`), http.StatusCreated)
	token := granted.LockToken
	if granted.ExpiresIn != 50*60 {
		t.Errorf("held for %d s, want LOCK_MAX_HOLD", granted.ExpiresIn)
	}
	if own := status(alice); own.TakeOver == nil || *own.TakeOver != "own" || own.LastActiveAt == nil {
		t.Errorf("%+v", own)
	}
	took := time.Now()
	refused := decoded[editingAnswer](t, a.api(bob, http.MethodPost, "/processes/1/lock", `{"takeOver":true}`), http.StatusLocked)
	if refused.Type != "/problems/locked" || refused.TakeOverAt == nil || refused.TakeOverAt.Sub(took) > 10*time.Second || refused.ExpiresIn == 0 {
		t.Errorf("%+v", refused)
	}
	if plain := decoded[editingAnswer](t, a.api(bob, http.MethodPost, "/processes/1/lock", `{"takeOver":false}`), http.StatusLocked); plain.TakeOverAt != nil {
		t.Errorf("%+v", plain)
	}
	servicestest.Eventually(t, func() bool {
		s := status(bob)
		return s.TakeOver != nil && *s.TakeOver == "protection-over"
	}, "the protection does not end")
	if s := status(a.signIn(t, "v@example.com")); s.TakeOver != nil || viewer.ID == "" {
		t.Errorf("a viewer may take over: %s", *s.TakeOver)
	}
	taken := decoded[editingAnswer](t, a.api(bob, http.MethodPost, "/processes/1/lock", `{"takeOver":true,"ttl":60}`), http.StatusCreated)
	if taken.ExpiresIn != 60 || taken.LockToken == token {
		t.Errorf("%+v", taken)
	}
	if told := a.lost(t, alice, "1", token).EndedBy; told.By == nil || told.By.UserID != me.ID {
		t.Errorf("%+v", told)
	}
	type audit struct{ Items []models.AuditEntry }
	entries := decoded[audit](t, a.api(admin, http.MethodGet, "/audit?action=lock-taken-over", ""), http.StatusOK).Items
	if len(entries) != 1 || entries[0].Actor != "bob@example.com" || entries[0].Target != "process:1" || entries[0].RequestID == "" {
		t.Errorf("%+v", entries)
	}
	if w := a.api(bob, http.MethodPost, "/processes/1/lock", `{"takeOver":"yes"}`); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
