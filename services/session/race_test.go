package session_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// A row read before a revoke, and stored as a copy long after it, revives
// nothing: neither where it was read nor, through Redis, elsewhere.
func TestSessionLateFillDoesNotRevive(t *testing.T) {
	server := servicestest.StartRedis(t)
	all := startInstances(t, 3, server, session.Options{})
	a, b, c := all[0], all[1], all[2]
	token, s := signIn(t, a, signUp(t, a.db, "ann@example.com"))
	server.Do("FLUSHALL")

	read, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	pause := func() { once.Do(func() { close(read); <-goOn }) }
	b.db.afterRead.Store(&pause)
	filled := make(chan error, 1)
	go func() {
		_, err := b.Get(t.Context(), token)
		filled <- err
	}()
	<-read
	if err := a.End(t.Context(), models.Ending{Hash: s.Hash}); err != nil {
		t.Fatal(err)
	}
	b.Sync(t.Context())
	// A read that begins after the revoke is refused once b knows of it, even at b, and even
	// while the old query is under way.
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
	close(goOn)
	if err := <-filled; err != nil { // it began before the revoke
		t.Logf("the read that was overtaken: %v", err)
	}
	for range askers {
		if err := <-asked; !errors.Is(err, models.ErrNotFound) {
			t.Errorf("asked after the revoke: %v", err)
		}
	}
	servicestest.Within(t, revokeBound, func() bool {
		_, err := b.Get(t.Context(), token)
		return errors.Is(err, models.ErrNotFound)
	}, "the late fill lives on in memory")
	refused(t, a, token)
	refused(t, c, token)
}

// Redis that comes back with copies from before the revoke revives nothing.
func TestSessionOldCopyInRedisDoesNotRevive(t *testing.T) {
	server := servicestest.StartRedis(t)
	all := startInstances(t, 2, server, session.Options{})
	token, s := signIn(t, all[0], signUp(t, all[0].db, "ann@example.com"))
	key := "test:session:" + s.Hash
	old := server.Do("GET", key)
	if err := all[0].End(t.Context(), models.Ending{Hash: s.Hash}); err != nil {
		t.Fatal(err)
	}
	server.Do("SET", key, old)
	refused(t, all[0], token)
	servicestest.Within(t, revokeBound, func() bool {
		_, err := all[1].Get(t.Context(), token)
		return errors.Is(err, models.ErrNotFound)
	}, "the old copy lives")
	// Nor does a copy that cannot be read, or says it is from the future.
	for _, copied := range []string{"", "x", "1 {", "0 " + `{"pos":999999,"id":"x","user":"1","idle":9999999999999999,"expires":9999999999999999}`} {
		server.Do("SET", key, copied)
		for _, i := range all {
			refused(t, i, token)
		}
	}
}

// A fill that comes late does not put old values over new ones in Redis.
func TestSessionLateFillKeepsNewValues(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	all := startInstances(t, 2, server, session.Options{})
	a, b := all[0], all[1]
	token, s := signIn(t, a, signUp(t, a.db, "ann@example.com"))
	server.Do("FLUSHALL")
	read, goOn := make(chan struct{}), make(chan struct{})
	pause := func() { close(read); <-goOn }
	b.db.afterRead.Store(&pause)
	filled := make(chan models.Session, 1)
	go func() { filled <- mustGet(t, b, token) }()
	<-read
	b.db.afterRead.Store(nil)
	if _, err := a.SaveData(t.Context(), s, []byte("new")); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	if late := <-filled; late.Version != 0 {
		t.Fatalf("late fill = %+v", late)
	}
	if copied := server.Do("GET", "test:session:"+s.Hash); !strings.HasPrefix(copied, "1 ") {
		t.Errorf("Redis holds %s", copied)
	}
	servicestest.Within(t, 3*time.Second, func() bool { return string(mustGet(t, b, token).Data) == "new" }, "old values live at b")
}

func TestSessionChangePassword(t *testing.T) {
	server := servicestest.StartRedis(t)
	all := startInstances(t, 2, server, session.Options{})
	a, b := all[0], all[1]
	ann := signUp(t, a.db, "ann@example.com")
	token, s := signIn(t, a, ann)
	other, _ := signIn(t, b, ann)
	s, err := a.SaveData(t.Context(), s, []byte("basket"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.ChangePassword(t.Context(), s, ann.Epoch+1, "new hash"); !errors.Is(err, models.ErrStale) {
		t.Errorf("with a wrong epoch: %v", err)
	}
	mustGet(t, a, token)

	next, now, err := a.ChangePassword(t.Context(), s, ann.Epoch, "new hash")
	if err != nil {
		t.Fatal(err)
	}
	if next == token || now.ID != s.ID || !now.CreatedAt.Equal(s.CreatedAt) || !now.ExpiresAt.Equal(s.ExpiresAt) || string(now.Data) != "basket" {
		t.Errorf("now = %+v, was %+v", now, s)
	}
	if got := mustGet(t, a, next); got.ID != s.ID {
		t.Errorf("got = %+v", got)
	}
	refused(t, a, token)
	refused(t, a, other)
	for _, ended := range []string{token, other} {
		servicestest.Within(t, 200*time.Millisecond, func() bool {
			_, err := b.Get(t.Context(), ended)
			return errors.Is(err, models.ErrNotFound)
		}, "an old session lives at b")
	}
	mustGet(t, b, next)
	if _, _, err := a.Create(t.Context(), of(ann)); !errors.Is(err, models.ErrStale) {
		t.Errorf("sign-in with the old password: %v", err)
	}
}

// A sign-in whose password was checked before a change of it never outlives it.
func TestSessionSignInRacesPasswordChange(t *testing.T) {
	all := startInstances(t, 2, servicestest.StartRedis(t), session.Options{MaxPerUser: 1000})
	a, b := all[0], all[1]
	signUp(t, a.db, "ann@example.com")
	for round := range 12 {
		ann, err := a.db.Credentials(t.Context(), "ann@example.com")
		if err != nil {
			t.Fatal(err)
		}
		_, s := signIn(t, a, ann)
		var wg sync.WaitGroup
		tokens := make([]string, 4)
		for n := range tokens {
			wg.Go(func() {
				token, _, err := b.Create(t.Context(), of(ann))
				if err != nil && !errors.Is(err, models.ErrStale) {
					t.Error(err)
				}
				tokens[n] = token
			})
		}
		next, _, err := a.ChangePassword(t.Context(), s, ann.Epoch, "hash")
		if err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		for _, token := range tokens {
			refused(t, a, token) // "" is refused, too
		}
		mustGet(t, a, next)
		if n, err := b.Count(t.Context(), ann.ID); n != 1 || err != nil {
			t.Fatalf("round %d: %d sessions, %v", round, n, err)
		}
	}
}

func TestSessionLimitPerUser(t *testing.T) {
	all := startInstances(t, 2, servicestest.StartRedis(t), session.Options{MaxPerUser: 3})
	a, b := all[0], all[1]
	ann := signUp(t, a.db, "ann@example.com")
	var tokens []string
	for range 5 {
		token, _ := signIn(t, a, ann)
		tokens = append(tokens, token)
	}
	for _, token := range tokens[:2] {
		for _, i := range all {
			servicestest.Within(t, revokeBound, func() bool {
				_, err := i.Get(t.Context(), token)
				return errors.Is(err, models.ErrNotFound)
			}, "one session too many")
		}
	}
	for _, token := range tokens[2:] {
		mustGet(t, b, token)
	}
}

// An administrator's change of rights applies everywhere, without a new sign-in.
func TestSessionRolesChange(t *testing.T) {
	all := startInstances(t, 2, servicestest.StartRedis(t), session.Options{})
	a, b := all[0], all[1]
	ann := signUp(t, a.db, "ann@example.com")
	token, _ := signIn(t, a, ann)
	mustGet(t, b, token)
	if _, err := a.db.UpdateUser(t.Context(), ann.ID, models.UserPatch{Roles: []string{models.RoleViewer}}); err != nil {
		t.Fatal(err)
	}
	a.Sync(t.Context())
	if got := mustGet(t, a, token); got.Roles[0] != models.RoleViewer {
		t.Errorf("roles at a = %v", got.Roles)
	}
	servicestest.Within(t, 200*time.Millisecond, func() bool { return mustGet(t, b, token).Roles[0] == models.RoleViewer }, "old rights at b")
}

// Revokes and reads from everywhere at once: a read that begins at the
// instance after the acknowledgement is refused.
func TestSessionRevokeUnderLoad(t *testing.T) {
	all := startInstances(t, 2, servicestest.StartRedis(t), session.Options{MaxPerUser: 1000})
	a, b := all[0], all[1]
	ann := signUp(t, a.db, "ann@example.com")
	for range 10 {
		token, s := signIn(t, a, ann)
		var ended sync.WaitGroup
		stop := make(chan struct{})
		for _, i := range []instance{a, a, b} {
			ended.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						if _, err := i.Get(t.Context(), token); err != nil && !errors.Is(err, models.ErrNotFound) {
							t.Error(err)
							return
						}
					}
				}
			})
		}
		if err := a.End(t.Context(), models.Ending{Hash: s.Hash}); err != nil {
			t.Error(err)
		}
		for range 20 {
			refused(t, a, token)
		}
		close(stop)
		ended.Wait()
	}
}
