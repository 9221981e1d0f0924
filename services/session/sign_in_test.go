package session_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/session"
)

func TestChangePassword(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.one(t), w.one(t)
	ann := w.signUp(t)
	token, s := signIn(t, a, ann)
	other, _ := signIn(t, b, ann)
	s = save(t, a, s, "basket")
	if _, _, err := w.changePassword(t.Context(), a, s, ann.Epoch+1); !errors.Is(err, models.ErrStale) {
		t.Errorf("with a wrong epoch: %v", err)
	}
	mustGet(t, a, token)

	next, now, err := w.changePassword(t.Context(), a, s, ann.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	acknowledged := time.Now()
	if next == token || now.ID != s.ID || !now.CreatedAt.Equal(s.CreatedAt) || !now.ExpiresAt.Equal(s.ExpiresAt) || string(now.Data) != "basket" {
		t.Errorf("now = %+v, was %+v", now, s)
	}
	if got := mustGet(t, a, next); got.ID != s.ID {
		t.Errorf("got = %+v", got)
	}
	for _, ended := range []string{token, other} {
		refused(t, a, ended)
		refusedInTime(t, b, ended, acknowledged)
	}
	mustGet(t, b, next)
	if _, _, err := a.Create(t.Context(), of(ann)); !errors.Is(err, models.ErrStale) {
		t.Errorf("sign-in with the old password: %v", err)
	}
}

// A sign-in whose password was checked before a change of it never outlives it.
func TestSignInRacesPasswordChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.one(t), w.one(t)
	email := w.signUp(t).Email
	for round := range 12 {
		ann, err := w.store.Credentials(t.Context(), email)
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
		next, _, err := w.changePassword(t.Context(), a, s, ann.Epoch)
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

func TestLimitPerUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.instance(t, redistest.New(t, w.server.Addr), session.Options{MaxPerUser: 3}), w.one(t)
	ann := w.signUp(t)
	var tokens []string
	for range 5 {
		token, _ := signIn(t, a, ann)
		tokens = append(tokens, token)
	}
	acknowledged := time.Now()
	for _, token := range tokens[:2] {
		refused(t, a, token)
		refusedInTime(t, b, token, acknowledged)
	}
	for _, token := range tokens[2:] {
		mustGet(t, b, token)
	}
}
