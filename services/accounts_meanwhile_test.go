package services_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/store"
)

// meanwhileStore lets something happen after credentials were read, while the
// password is checked.
type meanwhileStore struct {
	*store.Store
	happens []func() // after the first reading, the second, ...
}

func (s *meanwhileStore) read() {
	if len(s.happens) > 0 {
		next := s.happens[0]
		s.happens = s.happens[1:]
		next()
	}
}

func (s *meanwhileStore) Credentials(ctx context.Context, email string) (models.Credentials, error) {
	defer s.read()
	return s.Store.Credentials(ctx, email)
}

func (s *meanwhileStore) CredentialsByID(ctx context.Context, id string) (models.Credentials, error) {
	defer s.read()
	return s.Store.CredentialsByID(ctx, id)
}

// A right password stays right when the user's sessions are ended while it is
// checked, and does not when the password or the user has changed.
func TestPasswordCheckedMeanwhile(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	alice := a.credentials(t, "alice@example.com")
	signIn := func(at *services.Accounts, s models.Session) (string, error) {
		token, _, err := at.SignIn(t.Context(), s.User.Email, password, from("192.0.2.1"))
		return token, err
	}
	changePassword := func(at *services.Accounts, s models.Session) (string, error) {
		token, _, err := at.ChangePassword(t.Context(), s, password, "the next password", from(""))
		return token, err
	}
	endOthers := func(s models.Session) error {
		return a.sessions.End(t.Context(), models.Ending{UserID: s.User.ID, Keep: s.Hash})
	}
	change := func(change services.UserChange) func(models.Session) error {
		return func(s models.Session) error {
			_, err := a.ChangeUser(t.Context(), administrator, s.User.ID, change, from(""))
			return err
		}
	}
	for name, row := range map[string]struct {
		happens                func(s models.Session) error
		times                  int
		signIn, changePassword error
	}{
		"the others are ended": {endOthers, 1, nil, nil},
		"and once more":        {endOthers, 2, nil, nil},
		"again and again":      {endOthers, 100, models.ErrUnavailable, models.ErrUnavailable},
		"all are ended": {func(s models.Session) error {
			return a.sessions.DeleteUser(t.Context(), s.User.ID)
		}, 1, nil, models.ErrNotFound},
		"the roles change":     {change(services.UserChange{Roles: []string{models.RoleViewer}}), 1, nil, nil},
		"the password changes": {change(services.UserChange{Password: new("another password")}), 1, models.ErrInvalidCredentials, models.ErrNotFound},
		"the user is disabled": {change(services.UserChange{Disabled: new(true)}), 1, models.ErrInvalidCredentials, models.ErrNotFound},
		"the user is gone": {func(s models.Session) error {
			return a.DeleteUser(t.Context(), administrator, s.User.ID, from(""))
		}, 1, models.ErrInvalidCredentials, models.ErrNotFound},
	} {
		for what, step := range map[string]struct {
			do   func(*services.Accounts, models.Session) (string, error)
			want error
		}{"sign-in": {signIn, row.signIn}, "change of password": {changePassword, row.changePassword}} {
			t.Run(what+" while "+name, func(t *testing.T) {
				t.Parallel()
				user := must(a.db.CreateUser(t.Context(), strings.ReplaceAll(what+" "+name, " ", "-")+"@example.com", alice.PasswordHash, alice.Roles))
				_, s, err := a.sessions.Create(t.Context(), models.Session{User: models.UserRef{ID: user.ID}, Epoch: alice.Epoch})
				check(t, err)
				slow := &meanwhileStore{Store: a.db, happens: slices.Repeat([]func(){func() {
					if err := row.happens(s); err != nil {
						t.Error(err)
					}
				}}, row.times)}
				token, err := step.do(a.on(slow, loginLimits(1)), s)
				if !errors.Is(err, step.want) {
					t.Fatalf("%v, want %v", err, step.want)
				}
				if err == nil && !a.live(t, token) {
					t.Error("its token is of no session")
				}
			})
		}
	}
}
