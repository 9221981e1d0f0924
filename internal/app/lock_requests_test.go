package app

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// requestDoc is what the routes of a request for a lock answer.
type requestDoc struct {
	ID, State, Message, Type, Field string
	At, AnswerBy                    time.Time
	AnsweredAt                      *time.Time
	Lock                            *struct {
		LockToken string
		ExpiresIn int64
		Process   struct{ ID string }
		Degraded  bool
	}
}

// askedStatus is what the status of a lock says of the requests for it.
type askedStatus struct {
	Asked    int
	Requests *[]struct {
		ID, Message string
		By          struct{ UserID, Email string }
		At          time.Time
	}
}

func TestLockRequestsByTheAPI(t *testing.T) {
	onTwo(t, isAskedFor)
}

// isAskedFor asks for a lock at the other instance, and answers.
func isAskedFor(t *testing.T, a, other *app) {
	alice, bob, admin := a.signIn(t, "alice@example.com"), other.signIn(t, "bob@example.com"), a.signIn(t, "admin@example.com")
	decoded[any](t, a.api(admin, http.MethodPost, "/users", `{"email":"v@example.com","password":"a long password","roles":["viewer"]}`), http.StatusCreated)
	viewer := a.signIn(t, "v@example.com")
	streams := map[string]*stream{}
	for name, token := range map[string]string{"holder": alice, "administrator": admin, "viewer": viewer} {
		streams[name] = openStream(t, a.onSocket(t), token)
	}
	streams["asker"] = openStream(t, other.onSocket(t), bob)
	const path = "/processes/1/lock/requests"
	if free := decoded[requestDoc](t, other.api(bob, http.MethodPost, path, ""), http.StatusConflict); free.Type != "/problems/conflict" || free.Field != "lock" {
		t.Errorf("%+v", free)
	}
	token := decoded[grant](t, a.api(alice, http.MethodPost, "/processes/1/lock", ""), http.StatusCreated).LockToken
	if own := decoded[requestDoc](t, a.api(alice, http.MethodPost, path, ""), http.StatusConflict); own.Field != "lock" {
		t.Errorf("%+v", own)
	}

	w := other.api(bob, http.MethodPost, path, `{"message":"for a minute?"}`)
	asked := decoded[requestDoc](t, w, http.StatusCreated)
	one := path + "/" + asked.ID
	if asked.State != "open" || asked.AnswerBy.Sub(asked.At) != 2*time.Minute || w.Header().Get("Location") != "/api/v1"+one {
		t.Errorf("%+v at %s", asked, w.Header().Get("Location"))
	}
	if again := decoded[requestDoc](t, a.api(a.signIn(t, "bob@example.com"), http.MethodPost, path, ""), http.StatusOK); again.ID != asked.ID {
		t.Errorf("%+v", again)
	}
	for name, want := range map[string]bool{alice: true, admin: true, viewer: false} {
		s := decoded[askedStatus](t, a.api(name, http.MethodGet, "/processes/1/lock/status", ""), http.StatusOK)
		if s.Asked != 1 || (s.Requests != nil) != want || want && ((*s.Requests)[0].ID != asked.ID || (*s.Requests)[0].By.Email != "bob@example.com" || (*s.Requests)[0].Message != "for a minute?") {
			t.Errorf("%+v", s)
		}
	}
	for _, row := range []struct {
		user, method, path, body, token string
		code                            int
	}{
		{alice, http.MethodGet, one, "", "", 404},
		{admin, http.MethodGet, one, "", "", 404},
		{viewer, http.MethodGet, one, "", "", 403},
		{bob, http.MethodGet, path + "/none", "", "", 404},
		{bob, http.MethodGet, "/processes/2/lock/requests/" + asked.ID, "", "", 404},
		{bob, http.MethodGet, path + "/no.id", "", "", 422},
		{bob, http.MethodGet, one + "?x=1", "", "", 422},
		{bob, http.MethodPost, path, `{"message":"` + strings.Repeat("x", 201) + `"}`, "", 422},
		{bob, http.MethodPost, "/processes/4711/lock/requests", "", "", 404},
		{alice, http.MethodDelete, one, "", "", 404},
		{alice, http.MethodPost, one + "/answer", "", token, 400},
		{alice, http.MethodPost, one + "/answer", `{}`, token, 422},
		{alice, http.MethodPost, one + "/answer", `{"answer":"yes"}`, token, 422},
		{alice, http.MethodPost, one + "/answer", `{"answer":"later","minutes":31}`, token, 422},
		{alice, http.MethodPost, one + "/answer", `{"answer":"later","minutes":0}`, token, 422},
		{alice, http.MethodPost, one + "/answer", `{"answer":"no","minutes":5}`, token, 422},
		{alice, http.MethodPost, one + "/answer", `{"answer":"no","message":"\u0000"}`, token, 422},
		{alice, http.MethodPost, one + "/answer", `{"answer":"no"}`, "", 428},
		{alice, http.MethodPost, one + "/answer", `{"answer":"no"}`, "forged", 409},
		{bob, http.MethodPost, one + "/answer", `{"answer":"give"}`, token, 409},
		{alice, http.MethodPost, path + "/none/answer", `{"answer":"no"}`, token, 404},
	} {
		on := a
		if row.user == bob {
			on = other
		}
		headers := []string{"X-Lock-Token", row.token}
		if row.token == "" {
			headers = nil
		}
		if w := on.api(row.user, row.method, row.path, row.body, headers...); w.Code != row.code {
			t.Errorf("%s %s %s: %d %s", row.method, row.path, row.body, w.Code, w.Body)
		}
	}
	later := decoded[requestDoc](t, a.api(alice, http.MethodPost, one+"/answer", `{"answer":"later","minutes":3,"message":"soon"}`, "X-Lock-Token", token), http.StatusOK)
	if later.State != "later" || later.AnsweredAt == nil || later.AnswerBy.Sub(*later.AnsweredAt) != 3*time.Minute || later.Message != "soon" {
		t.Errorf("%+v", later)
	}
	if seen := decoded[requestDoc](t, other.api(bob, http.MethodGet, one, ""), http.StatusOK); seen.State != "later" || seen.Message != "soon" || seen.Lock != nil {
		t.Errorf("%+v", seen)
	}
	decoded[requestDoc](t, a.api(alice, http.MethodPost, one+"/answer", `{"answer":"give"}`, "X-Lock-Token", token), http.StatusOK)
	given := decoded[requestDoc](t, other.api(bob, http.MethodGet, one, "", "Prefer", "wait=30"), http.StatusOK)
	if given.State != "given" || given.Lock == nil || given.Lock.ExpiresIn != 300 || given.Lock.Process.ID != "1" {
		t.Fatalf("%+v", given)
	}
	decoded[any](t, other.api(bob, http.MethodPut, "/processes/1", save, "X-Lock-Token", given.Lock.LockToken), http.StatusOK)
	if told := a.lost(t, alice, "1", token).EndedBy; told.How != "given" || told.By.Email != "alice@example.com" {
		t.Errorf("%+v", told)
	}
	if w := other.api(bob, http.MethodDelete, one, ""); w.Code != http.StatusNoContent {
		t.Errorf("%d %s", w.Code, w.Body)
	}

	// All but who has nothing to do with it hear of it.
	for name, s := range streams {
		if name != "viewer" {
			s.has(t, `"request":"`+asked.ID+`","state":"open","by":{"userId":"`)
			s.has(t, `"message":"for a minute?"`)
			s.has(t, `"state":"later"`)
		}
		s.has(t, "event: given\n")
		if got := len(s.With("event: asked")) + len(s.With("event: answered")); name == "viewer" && got != 0 || name != "viewer" && len(s.With("event: asked")) != 1 {
			t.Errorf("%s hears %d:\n%s", name, got, s.String())
		}
	}
}

// What nobody answers passes on by itself, to one who waits for it.
func TestUnansweredLockRequestIsGiven(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(testing.TB, map[string]string) *app{"with Redis": startApp, "Redis gone": startCutOff} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			isGivenUnanswered(t, start(t, map[string]string{"LOCK_PROTECTION": "1s", "LOCK_ASK_TIMEOUT": "1s"}))
		})
	}
}

func isGivenUnanswered(t *testing.T, a *app) {
	alice, bob := a.signIn(t, "alice@example.com"), a.signIn(t, "bob@example.com")
	decoded[any](t, a.api(alice, http.MethodPost, "/processes/1/lock", ""), http.StatusCreated)
	asked := decoded[requestDoc](t, a.api(bob, http.MethodPost, "/processes/1/lock/requests", ""), http.StatusCreated)
	var given requestDoc
	servicestest.Eventually(t, func() bool {
		given = decoded[requestDoc](t, a.api(bob, http.MethodGet, "/processes/1/lock/requests/"+asked.ID, "", "Prefer", "wait=30"), http.StatusOK)
		return given.State != "open"
	}, "it is not given")
	if given.State != "given" || given.Lock == nil || given.AnsweredAt.Before(asked.AnswerBy) {
		t.Errorf("%+v", given)
	}
	decoded[any](t, a.api(bob, http.MethodPut, "/processes/1", save, "X-Lock-Token", given.Lock.LockToken), http.StatusOK)
}

// A lock that was asked for is given, fetched and used although Redis went away in between, whichever
// way it goes; and when it is back, empty or not, the asker still has it.
func TestLockRequestsInAnOutage(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]struct {
		begin, end func(*servicestest.RedisServer)
	}{
		"killed": {(*servicestest.RedisServer).Kill, (*servicestest.RedisServer).Start},
		"frozen": {(*servicestest.RedisServer).Freeze, (*servicestest.RedisServer).Thaw},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := servicestest.StartRedis(t)
			a := startApp(t, map[string]string{"REDIS_URL": "redis://" + server.Addr, "REDIS_TIMEOUT": "1s"})
			a.available(t, true)
			alice, bob := a.signIn(t, "alice@example.com"), a.signIn(t, "bob@example.com")
			token := decoded[grant](t, a.api(alice, http.MethodPost, "/processes/1/lock", ""), http.StatusCreated).LockToken
			asked := decoded[requestDoc](t, a.api(bob, http.MethodPost, "/processes/1/lock/requests", ""), http.StatusCreated)
			one := "/processes/1/lock/requests/" + asked.ID
			lose.begin(server)
			a.available(t, false)
			w := a.api(alice, http.MethodPost, one+"/answer", `{"answer":"give"}`, "X-Lock-Token", token)
			if decoded[requestDoc](t, w, http.StatusOK); !strings.Contains(w.Header().Get("X-Degraded"), "locks") {
				t.Errorf("X-Degraded %q", w.Header().Get("X-Degraded"))
			}
			given := decoded[requestDoc](t, a.api(bob, http.MethodGet, one, ""), http.StatusOK)
			if given.Lock == nil || !given.Lock.Degraded {
				t.Fatalf("%+v", given)
			}
			a.lost(t, alice, "1", token)
			lose.end(server)
			a.available(t, true)
			servicestest.Eventually(t, func() bool {
				return a.api(bob, http.MethodPost, "/processes/1/lock/extend", "", "X-Lock-Token", given.Lock.LockToken).Header().Get("X-Degraded") == ""
			}, "Redis does not learn of it")
			decoded[any](t, a.api(bob, http.MethodPut, "/processes/1", save, "X-Lock-Token", given.Lock.LockToken), http.StatusOK)
			a.lost(t, alice, "1", token)
		})
	}
}

// The answer with a token is as it stands, however long, for clients that accept gzip; one without
// a secret is compressed.
func TestGivenLockIsNotCompressed(t *testing.T) {
	t.Parallel()
	a := startApp(t, nil)
	alice, bob := a.signIn(t, "alice@example.com"), a.signIn(t, "bob@example.com")
	long := `{"title":"t","status":"draft","description":"` + strings.Repeat("long ", 1000) + `"}`
	token := decoded[grant](t, a.api(alice, http.MethodPost, "/processes/1/lock", ""), http.StatusCreated).LockToken
	decoded[any](t, a.api(alice, http.MethodPut, "/processes/1", long, "X-Lock-Token", token), http.StatusOK)
	path := "/processes/1/lock/requests"
	one := path + "/" + decoded[requestDoc](t, a.api(bob, http.MethodPost, path, ""), http.StatusCreated).ID
	decoded[any](t, a.api(alice, http.MethodPost, one+"/answer", `{"answer":"give"}`, "X-Lock-Token", token), http.StatusOK)
	for path, coding := range map[string]string{one: "", "/processes": "gzip"} {
		w := a.api(bob, http.MethodGet, path, "", "Accept-Encoding", "gzip")
		if got := w.Header().Get("Content-Encoding"); w.Code != http.StatusOK || got != coding || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d with Content-Encoding %q and %v", path, w.Code, got, w.Header())
		}
		if coding == "" && !strings.Contains(w.Body.String(), `"lockToken"`) {
			t.Errorf("%s has no token: %.200q", path, w.Body)
		}
	}
}
