package session_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"gatehouse/models"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// TestResurrectionProof ends sessions in every way while something keeps an
// old copy of them: a read that is paused for longer than copies live, a Redis that
// gets its old bytes back or is emptied, another Redis that gets nothing, a
// sign-in that races a change of password. None comes back.
func TestResurrectionProof(t *testing.T) {
	rounds, worlds := 30, 2
	if servicestest.LongProof() {
		rounds, worlds = inFull(100_000), 8 // as many at once as go test -parallel lets
	}
	left := newCountdown(t, rounds)
	for range worlds {
		t.Run("world", func(t *testing.T) {
			t.Parallel()
			proveResurrections(t, left)
		})
	}
}

func proveResurrections(t *testing.T, left *countdown) {
	shared, other := servicestest.StartRedis(t), servicestest.StartRedis(t)
	w := newWorldOn(t, newDatabase(t))
	var all []instance
	for _, server := range []*servicestest.RedisServer{shared, shared, other} { // two share a Redis, one has its own
		all = append(all, w.instance(t, redistest.Impatient(t, server.Addr), session.Options{MaxPerUser: 1_000_000}))
	}
	servers := []*servicestest.RedisServer{shared, other}
	var ended []string
	var email string
	for round := 0; left.next(); round++ {
		if round%50 == 0 { // rows of ended sessions stay for a while, and a sign-in looks at all of its user
			email = w.signUp(t).Email
		}
		ended = append(ended, resurrect(t, w, all, servers, email)...)
		ended = ended[max(0, len(ended)-100):]
	}
	for _, i := range all { // later, when no instance has just synced
		for _, token := range ended {
			refused(t, i, token)
		}
	}
}

// resurrect begins a session, ends it, brings its copies back, and returns the
// tokens that no instance may accept any more.
func resurrect(t *testing.T, w *world, all []instance, servers []*servicestest.RedisServer, email string) (ended []string) {
	t.Helper()
	ann, err := w.store.Credentials(t.Context(), email)
	if err != nil {
		t.Fatal(err)
	}
	order := rand.Perm(len(all))
	at, late := all[order[0]], all[order[1]]
	token, s := signIn(t, at, ann)
	for _, i := range all {
		mustGet(t, i, token)
	}
	key := "test:session:" + s.Hash
	var old []string
	for _, server := range servers {
		old = append(old, server.Do("GET", key))
	}
	if rand.IntN(4) == 0 {
		servers[0].Do("FLUSHALL")
	}

	// A read of the row that is overtaken by the end.
	waitForRead, goOn := late.pauseNextRead()
	filled := make(chan struct{})
	go func() {
		defer close(filled)
		_, _ = late.Refresh(t.Context(), s) // reads the row, whatever copies there are
	}()
	waitForRead(t)
	ended = append(ended, token)
	var racing sync.WaitGroup
	switch rand.IntN(5) {
	case 0:
		err = at.End(t.Context(), models.Ending{Hash: s.Hash})
	case 1:
		err = at.End(t.Context(), models.Ending{UserID: ann.ID, ID: s.ID})
	case 2:
		err = at.DeleteUser(t.Context(), ann.ID)
	case 3:
		_, kept, setErr := at.Create(t.Context(), of(ann))
		err = errors.Join(setErr, at.End(t.Context(), models.Ending{UserID: kept.User.ID, Keep: kept.Hash}))
	case 4:
		signedIn := make(chan string, 1)
		racing.Go(func() {
			raced, _, err := all[order[2]].Create(t.Context(), of(ann))
			if err != nil && !errors.Is(err, models.ErrStale) {
				t.Error(err)
			}
			signedIn <- raced
		})
		_, _, err = w.changePassword(t.Context(), at, s, ann.Epoch)
		racing.Wait()
		if raced := <-signedIn; raced != "" {
			ended = append(ended, raced)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range ended {
		refused(t, at, token)
	}
	for _, i := range all {
		i.Sync(t.Context())
	}
	goOn()
	<-filled
	for n, server := range servers {
		if old[n] != "" {
			server.Do("SET", key, old[n])
		}
	}
	for _, i := range all {
		for _, token := range ended {
			refused(t, i, token)
		}
	}
	return ended
}
