package services

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"gatehouse/models"
)

// ChangePassword sets the user's own password: a new token for this session, and
// every other one of the user ends. A wrong current password is a
// *models.ValidationError on currentPassword.
func (a *Accounts) ChangePassword(ctx context.Context, session models.Session, current, next string, client Client) (token string, _ models.Session, err error) {
	wrong := models.Invalid("currentPassword", "is wrong")
	who, err := a.store.CredentialsByID(ctx, session.User.ID)
	if err != nil {
		return "", session, err
	}
	right, err := a.isRight(ctx, current, who)
	if err != nil {
		return "", session, fmt.Errorf("change password: %w: %w", models.ErrUnavailable, err)
	}
	if !right {
		if err := a.audit(ctx, auditOf(models.AuditSignInFailed, who.Email, who.ID, client, "at a change of password")); err != nil {
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
		return a.whileRight(ctx, who, current, func(who models.Credentials) error {
			token, changed, err = a.sessions.Rotate(ctx, session, who.Epoch, func(next models.Session) error {
				return a.store.ChangePassword(ctx, who.ID, who.Epoch, hash, next)
			})
			return err
		})
	}, auditOf(models.AuditPasswordChanged, who.Email, who.ID, client, ""))
	if errors.Is(err, models.ErrInvalidCredentials) {
		return "", session, wrong // another request changed it meanwhile
	}
	if err != nil {
		return "", session, err
	}
	return token, changed, nil
}

// isRight reports whether it is the password of who; of no user it is none.
func (a *Accounts) isRight(ctx context.Context, password string, who models.Credentials) (bool, error) {
	right, err := a.passwords.Matches(ctx, password, who.PasswordHash)
	if errors.Is(err, errUnusableHash) {
		a.log.Error("a user cannot sign in until an administrator sets a new password", "user", who.ID, "error", err)
		return false, nil
	}
	return right, err
}

// renewHash brings a hash up to today's parameters, now that its password is at hand.
// A password changed meanwhile stays.
func (a *Accounts) renewHash(ctx context.Context, who models.Credentials, password string) {
	renewed, ok := a.passwords.renew(password, who.PasswordHash)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	if err := a.store.RenewPasswordHash(ctx, who.ID, who.PasswordHash, renewed); err != nil {
		a.log.Warn("a password hash not brought up to date: the next sign-in will", "user", who.ID, "error", err)
	}
}

// whileRight does something for which the password of who was checked, again with
// newer credentials if the user's epoch has moved on: that may only have ended other
// sessions. models.ErrInvalidCredentials if the password is not the same any more, or
// the user is disabled or gone.
func (a *Accounts) whileRight(ctx context.Context, who models.Credentials, password string, do func(who models.Credentials) error) error {
	for range maxEpochRetries {
		if err := do(who); !errors.Is(err, models.ErrStale) {
			return err
		}
		now, err := a.store.CredentialsByID(ctx, who.ID)
		switch {
		case errors.Is(err, models.ErrNotFound):
			return models.ErrInvalidCredentials
		case err != nil:
			return err
		case now.Disabled:
			return models.ErrInvalidCredentials
		}
		if now.PasswordHash != who.PasswordHash { // perhaps brought up to date by another sign-in
			if right, err := a.isRight(ctx, password, now); err != nil || !right {
				return cmp.Or(err, models.ErrInvalidCredentials)
			}
		}
		who = now
	}
	return fmt.Errorf("the user's sessions are ended again and again: %w", models.ErrUnavailable)
}

// EnsureUser creates a user unless the e-mail address is known already.
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

// CheckPassword returns the user with an address, and whether the password is theirs,
// also of a disabled one; models.ErrNotFound if there is none. It begins no session,
// counts against no limit and is not audited: it is for what an operator configured, not
// for what a client sends.
func (a *Accounts) CheckPassword(ctx context.Context, address, password string) (user models.User, right bool, err error) {
	who, err := a.store.Credentials(ctx, address)
	if err != nil {
		return models.User{}, false, err
	}
	right, err = a.passwords.Matches(ctx, password, who.PasswordHash)
	if errors.Is(err, errUnusableHash) {
		err = nil
	}
	return who.User, right, err
}
