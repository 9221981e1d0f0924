package store_test

import (
	"testing"
	"time"
)

func TestNetworks(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user := newUser(t, s, "ann@example.com")
		known := func(email, network string, since time.Time) bool {
			return must(s.KnownNetwork(t.Context(), email, network, since))
		}
		check(t, s.RememberNetwork(t.Context(), user.ID, "here", start))
		check(t, s.RememberNetwork(t.Context(), user.ID, "here", start.Add(-time.Hour))) // does not go back
		if !known("ANN@example.com", "here", start) || known(user.Email, "here", start.Add(time.Second)) {
			t.Error("the time of the last sign-in is not kept")
		}
		if known(user.Email, "there", start) || known("nobody@example.com", "here", start) {
			t.Error("known without a sign-in")
		}
		check(t, s.RememberNetwork(t.Context(), user.ID, "here", start.Add(time.Hour)))
		if !known(user.Email, "here", start.Add(time.Hour)) {
			t.Error("a later sign-in does not count")
		}
		for _, id := range append(badIDs, "99") {
			check(t, s.RememberNetwork(t.Context(), id, "here", start))
		}
		check(t, s.DeleteUser(t.Context(), user.ID))
		again := newUser(t, s, user.Email)
		if known(again.Email, "here", start) {
			t.Error("a new user inherits the networks of a deleted one")
		}
	})
}
