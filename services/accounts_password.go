package services

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"gatehouse/models"
)

// ChangePassword sets the password of the user of session. The session gets a new token, and all
// other sessions of the user end. A wrong current password is a *models.ValidationError on
// currentPassword. models.ErrNotFound if the session has ended. It does not count the attempt:
// AllowSignIn does.
func (a *Accounts) ChangePassword(ctx context.Context, session models.Session, current, next string, client Client) (token string, _ models.Session, err error) {
	wrong := models.Invalid("currentPassword", "is wrong")
	user, err := a.store.CredentialsByID(ctx, session.User.ID)
	if err != nil {
		return "", session, err
	}
	right, err := a.passwordMatches(ctx, current, user)
	if err != nil {
		return "", session, fmt.Errorf("change password: %w: %w", models.ErrUnavailable, err)
	}
	if !right {
		if err := a.audit(ctx, auditOf(models.AuditSignInFailed, user.Email, user.ID, client, "at a change of password")); err != nil {
			return "", session, err
		}
		return "", session, wrong
	}
	hash, err := a.passwords.Hash(ctx, next)
	if err != nil {
		return "", session, fmt.Errorf("change password: %w: %w", models.ErrUnavailable, err)
	}
	var changed models.Session
	err = a.audited(ctx, func(ctx context.Context) error {
		return a.retryStale(ctx, user, current, func(user models.Credentials) error {
			token, changed, err = a.sessions.Rotate(ctx, session, user.Epoch, func(next models.Session) error {
				return a.store.ChangePassword(ctx, user.ID, user.Epoch, hash, next)
			})
			return err
		})
	}, auditOf(models.AuditPasswordChanged, user.Email, user.ID, client, ""))
	if errors.Is(err, models.ErrInvalidCredentials) {
		return "", session, wrong // another request changed it meanwhile
	}
	if err != nil {
		return "", session, err
	}
	return token, changed, nil
}

// passwordMatches reports whether it is the password of the user; never for an unknown user,
// whose PasswordHash is "".
func (a *Accounts) passwordMatches(ctx context.Context, password string, user models.Credentials) (bool, error) {
	right, err := a.passwords.Matches(ctx, password, user.PasswordHash)
	if errors.Is(err, errUnusableHash) {
		a.log.Error("a user cannot sign in until an administrator sets a new password", "user", user.ID, "error", err)
		return false, nil
	}
	return right, err
}

// renewHash stores a hash with today's parameters, while the password is at hand. If the
// password has changed in the meantime it does nothing.
func (a *Accounts) renewHash(ctx context.Context, user models.Credentials, password string) {
	renewed, ok := a.passwords.renew(password, user.PasswordHash)
	if !ok {
		return
	}
	if err := a.store.RenewPasswordHash(context.WithoutCancel(ctx), user.ID, user.PasswordHash, renewed); err != nil {
		a.log.Warn("a password hash was not renewed: the next sign-in will try again", "user", user.ID, "error", err)
	}
}

// retryStale calls do with the credentials for which the password was checked. If the user's
// epoch has moved on, which ends the user's sessions, it calls do again with the newer
// credentials. models.ErrInvalidCredentials if the password has changed, or the user is
// disabled or gone.
func (a *Accounts) retryStale(ctx context.Context, user models.Credentials, password string, do func(user models.Credentials) error) error {
	for range maxEpochRetries {
		if err := do(user); !errors.Is(err, models.ErrStale) {
			return err
		}
		now, err := a.store.CredentialsByID(ctx, user.ID)
		switch {
		case errors.Is(err, models.ErrNotFound):
			return models.ErrInvalidCredentials
		case err != nil:
			return err
		case now.Disabled:
			return models.ErrInvalidCredentials
		}
		if now.PasswordHash != user.PasswordHash { // another sign-in may have renewed it
			if right, err := a.passwordMatches(ctx, password, now); err != nil || !right {
				return cmp.Or(err, models.ErrInvalidCredentials)
			}
		}
		user = now
	}
	return fmt.Errorf("other requests keep ending the user's sessions: %w", models.ErrUnavailable)
}

// EnsureUser creates a user unless the e-mail address is in use. models.ErrUnavailable if the
// database cannot be asked, or if the password cannot be hashed in time.
func (a *Accounts) EnsureUser(ctx context.Context, email, password string, roles ...string) error {
	if _, err := a.store.Credentials(ctx, email); !errors.Is(err, models.ErrNotFound) {
		return err
	}
	_, err := a.CreateUser(ctx, "start", email, password, roles, Client{})
	if errors.Is(err, models.ErrEmailTaken) {
		return nil // another instance was quicker
	}
	return err
}

// CheckPassword returns the user with an address, disabled or not, and whether it is the user's
// password. models.ErrNotFound if there is none. It is for passwords that an operator has
// configured, not for clients: it is neither limited nor audited, and begins no session.
func (a *Accounts) CheckPassword(ctx context.Context, address, password string) (user models.User, right bool, err error) {
	known, err := a.store.Credentials(ctx, address)
	if err != nil {
		return models.User{}, false, err
	}
	right, err = a.passwords.Matches(ctx, password, known.PasswordHash)
	if errors.Is(err, errUnusableHash) {
		err = nil
	}
	return known.User, right, err
}
