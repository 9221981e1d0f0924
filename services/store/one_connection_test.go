package store_test

import (
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/store"
)

// No call waits for a second connection, or a second turn, while it has one.
func TestOneConnectionIsEnough(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := openWith(t, store.Options{URL: w.url, Timeout: 5 * time.Second, MaxConns: 1})
		user := newUser(t, s, "ann@example.com", models.RoleAdmin)
		now := time.Now().UTC()
		begin := func(hash string, ends time.Time) models.Session {
			x := models.Session{
				Hash: hash, ID: "id of " + hash, User: models.UserRef{ID: user.ID}, Epoch: 1,
				CreatedAt: now, LastSeen: now, IdleAt: ends, ExpiresAt: ends,
			}
			check(t, errorOf(s.InsertSession(t.Context(), x, 3)))
			return x
		}
		begin("dead", now.Add(time.Minute))
		begin("a", now.Add(time.Hour))
		kept := begin("b", now.Add(time.Hour))
		wantError(t, errorOf(s.SaveSessionData(t.Context(), kept.Hash, 7, []byte("x"))), models.ErrStale)
		wantError(t, errorOf(s.SaveSessionData(t.Context(), "nobody's", 0, []byte("x"))), models.ErrNotFound)
		check(t, errorOf(s.TouchSessions(t.Context(), []models.Activity{{Hash: "b", Since: now, LastSeen: now, IdleAt: now.Add(time.Hour)}})))
		_, removed, err := s.CleanUpSessions(t.Context(), now.Add(2*time.Minute), "", 10)
		check(t, err)
		if removed != 1 {
			t.Errorf("cleaned up %d sessions", removed)
		}
		check(t, errorOf(s.CleanUp(t.Context(), now, 10)))

		p, err := s.CreateProcess(t.Context(), user.ID, fields("x"))
		check(t, err)
		wantError(t, errorOf(s.UpdateProcess(t.Context(), p.ID, user.ID, fields("y"), models.WriteGuard{GrantedVersion: 9})), models.ErrVersionConflict)
		wantError(t, s.DeleteProcess(t.Context(), p.ID, user.ID, models.WriteGuard{GrantedVersion: 9}), models.ErrVersionConflict)

		check(t, s.EndSessions(t.Context(), models.Ending{UserID: user.ID, Keep: kept.Hash}))
		check(t, s.EndSessions(t.Context(), models.Ending{Everybody: true, Keep: kept.Hash}))
		wantError(t, errorOf(s.UpdateUser(t.Context(), user.ID, models.UserPatch{Disabled: new(true)})), models.ErrLastAdmin)
		check(t, errorOf(s.Setting(t.Context(), "k", "v")))
	})
}
