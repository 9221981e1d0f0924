package store_test

import (
	"errors"
	"testing"

	"gatehouse/models"
)

// Values for a session whose row is still there, but ended, are not acknowledged: no reader would
// find them.
func TestValuesOfEndedSessions(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		for how, end := range map[string]func(user models.User) error{
			"with the user's others": func(user models.User) error {
				return s.EndSessions(t.Context(), models.Ending{UserID: user.ID})
			},
			"with everybody's": func(models.User) error {
				return s.EndSessions(t.Context(), models.Ending{Everybody: true})
			},
			"as the user is disabled": func(user models.User) error {
				return errorOf(s.UpdateUser(t.Context(), user.ID, models.UserPatch{Disabled: ptr(true)}))
			},
		} {
			user := newUser(t, s, how+"@example.com")
			x := session(user, how)
			insert(t, s, x)
			check(t, end(user))
			if err := errorOf(s.SaveSessionData(t.Context(), x.Hash, 0, []byte("x"))); !errors.Is(err, models.ErrNotFound) {
				t.Errorf("ended %s: error is %v", how, err)
			}
		}
	})
}
