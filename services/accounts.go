package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"gatehouse/internal/require"
	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/ratelimit"
	"gatehouse/services/session"
)

// AccountStore is what Accounts needs of the database; *store.Store is one.
type AccountStore interface {
	userReader
	userWriter
	passwordRenewer
	sessionRows
	signInNetworks
	auditTrail
	lockEndWriter
}

type sessionRows interface {
	ChangePassword(ctx context.Context, userID string, epoch int64, newHash string, next models.Session) error
	CountSessions(ctx context.Context, userIDs []string, now time.Time) (map[string]int, error)
}

type userReader interface {
	User(ctx context.Context, id string) (models.User, error)
	Users(ctx context.Context, page models.Page) (models.List[models.User], error)
	Credentials(ctx context.Context, email string) (models.Credentials, error)
	CredentialsByID(ctx context.Context, id string) (models.Credentials, error)
}

type userWriter interface {
	CreateUser(ctx context.Context, address, passwordHash string, roles []string) (models.User, error)
	UpdateUser(ctx context.Context, id string, patch models.UserPatch) (models.User, error)
	DeleteUser(ctx context.Context, id string) error
	Seed(ctx context.Context, seed models.Seed) (done bool, err error)
}

type passwordRenewer interface {
	// RenewPasswordHash replaces the hash that was read by another one of the same password. If
	// the hash has changed it does nothing. It ends no session.
	RenewPasswordHash(ctx context.Context, userID, read, renewed string) error
}

type signInNetworks interface {
	RememberNetwork(ctx context.Context, userID, network string, at time.Time) error
	KnownNetwork(ctx context.Context, email, network string, since time.Time) (bool, error)
}

// Client describes the client of a request, for audit entries, sessions and limits.
type Client struct {
	IP        string
	Network   string // the network that limits count: an IPv4 address, or 56 bits of an IPv6 address
	UserAgent string
	RequestID string
}

// AccountsOptions configures Accounts: the limits on sign-ins for each client network and for
// each account. Both must be valid.
type AccountsOptions struct {
	LoginByIP      models.Policy
	LoginByAccount models.Policy
	Logger         *slog.Logger // nil is slog.Default
}

// maxEpochRetries is how often a step is tried again if other requests end the user's sessions.
const maxEpochRetries = 5

// Accounts signs users in and out, manages users, and ends sessions and locks for administrators.
// Each of these has an audit entry, in the same transaction where there is one. Accounts is
// safe for concurrent use and has nothing to close.
//
// All methods need the database: they return models.ErrUnavailable if it cannot be asked, and
// do nothing without their audit entry. Without Redis they work; each instance then counts
// sign-ins by itself, if the policy says so. Methods that hash or check a password also return
// models.ErrUnavailable if too many passwords wait for that.
type Accounts struct {
	store     AccountStore
	sessions  *session.Cache
	locks     *lock.Locker
	limiter   *ratelimit.Limiter
	passwords *Passwords
	opt       AccountsOptions
	log       *slog.Logger
}

// NewAccounts returns an Accounts. It panics without one of its arguments, and on an invalid
// policy: that is a mistake in the program.
func NewAccounts(store AccountStore, sessions *session.Cache, locks *lock.Locker, limiter *ratelimit.Limiter, opt AccountsOptions) *Accounts {
	require.Must("services.NewAccounts",
		require.Argument{Name: "AccountStore", Value: store}, require.Argument{Name: "session.Cache", Value: sessions},
		require.Argument{Name: "lock.Locker", Value: locks}, require.Argument{Name: "ratelimit.Limiter", Value: limiter})
	for _, policy := range []models.Policy{opt.LoginByIP, opt.LoginByAccount} {
		if err := policy.Validate(); err != nil {
			panic("services.NewAccounts: " + err.Error())
		}
	}
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	return &Accounts{store: store, sessions: sessions, locks: locks, limiter: limiter, passwords: NewPasswords(), opt: opt, log: opt.Logger}
}

// SignIn begins a session. models.ErrInvalidCredentials, after the same time, for an unknown user,
// a wrong password and a disabled user. It does not count the attempt: AllowSignIn does.
func (a *Accounts) SignIn(ctx context.Context, email, password string, client Client) (token string, current models.Session, err error) {
	email = cleanAddress(email)
	user, err := a.store.Credentials(ctx, email)
	switch {
	case errors.Is(err, models.ErrNotFound):
		user = models.Credentials{}
	case err != nil:
		return "", current, err
	}
	right, err := a.passwordMatches(ctx, password, user)
	if err != nil {
		return "", current, fmt.Errorf("sign in: %w: %w", models.ErrUnavailable, err)
	}
	usual, err := a.store.KnownNetwork(ctx, email, client.Network, time.Now().Add(-knownNetworkAge)) // for unknown users, too: it takes time
	if err != nil {
		return "", current, err
	}
	if right && !user.Disabled {
		entries := []models.AuditEntry{auditOf(models.AuditSignIn, user.Email, user.ID, client, "")}
		if !usual {
			entries = append(entries, auditOf(models.AuditSignInNewPlace, user.Email, user.ID, client, "not signed in from there during the last 30 days"))
		}
		err = a.audited(ctx, func(ctx context.Context) error {
			token, current, err = a.begin(ctx, user, password, client)
			return err
		}, entries...)
	} else {
		err = models.ErrInvalidCredentials
	}
	switch {
	case errors.Is(err, models.ErrInvalidCredentials):
		// Without this entry the answer is 503, also for a right password: it reveals nothing.
		if err := a.audit(ctx, auditOf(models.AuditSignInFailed, email, user.ID, client, "")); err != nil {
			return "", current, err
		}
		return "", current, fmt.Errorf("sign in: %w", err)
	case err != nil:
		return "", current, err
	}
	a.renewHash(ctx, user, password)
	return token, current, nil
}

func (a *Accounts) begin(ctx context.Context, user models.Credentials, password string, client Client) (token string, current models.Session, err error) {
	err = a.retryStale(ctx, user, password, func(user models.Credentials) error {
		token, current, err = a.sessions.Create(ctx, models.Session{
			User: models.UserRef{ID: user.ID, Email: user.Email}, Roles: user.Roles, Epoch: user.Epoch, UserAgent: client.UserAgent, IP: client.IP,
		})
		return err
	})
	if err != nil {
		return "", current, err
	}
	if err := a.store.RememberNetwork(ctx, user.ID, client.Network, time.Now()); err != nil {
		a.log.Warn("sign-in address not remembered", "user", user.ID, "error", err) // the session is valid all the same
	}
	return token, current, nil
}

// Users returns a page of users, oldest first; models.ErrBadCursor if the cursor is not its own.
func (a *Accounts) Users(ctx context.Context, page models.Page) (models.List[models.User], error) {
	return a.store.Users(ctx, page)
}

// User returns a user; models.ErrNotFound if there is none.
func (a *Accounts) User(ctx context.Context, id string) (models.User, error) {
	return a.store.User(ctx, id)
}

// CreateUser adds a user. The caller has validated address, password and roles. actor is the
// e-mail address for the audit. models.ErrEmailTaken if the address is in use.
func (a *Accounts) CreateUser(ctx context.Context, actor, email, password string, roles []string, client Client) (models.User, error) {
	hash, err := a.passwords.Hash(ctx, password)
	if err != nil {
		return models.User{}, fmt.Errorf("create user: %w: %w", models.ErrUnavailable, err)
	}
	var user models.User
	err = a.audited(ctx, func(ctx context.Context) (err error) {
		user, err = a.store.CreateUser(ctx, email, hash, roles)
		return err
	}, auditOf(models.AuditUserCreated, actor, "", client, email+" as "+strings.Join(roles, ", ")))
	if err != nil {
		return models.User{}, err
	}
	return user, nil
}

// UserChange is a change of a user by an administrator; nil fields stay as they are.
type UserChange struct {
	Roles    []string
	Disabled *bool
	Password *string
}

// ChangeUser changes a user for actor. The change takes effect here at once, and within 2 s on all
// other instances. A new password or disabling ends the user's sessions, disabling also the user's
// locks. models.ErrNotFound, or models.ErrLastAdmin if no administrator would be left.
func (a *Accounts) ChangeUser(ctx context.Context, actor models.UserRef, id string, change UserChange, client Client) (models.User, error) {
	patch := models.UserPatch{Roles: change.Roles, Disabled: change.Disabled}
	if change.Password != nil {
		if _, err := a.store.User(ctx, id); err != nil {
			return models.User{}, err
		}
		hash, err := a.passwords.Hash(ctx, *change.Password)
		if err != nil {
			return models.User{}, fmt.Errorf("change user: %w: %w", models.ErrUnavailable, err)
		}
		patch.PasswordHash = &hash
	}
	var user models.User
	err := a.audited(ctx, func(ctx context.Context) (err error) {
		user, err = a.store.UpdateUser(ctx, id, patch)
		return err
	}, auditOf(models.AuditUserChanged, actor.Email, id, client, change.String()))
	if err != nil {
		return models.User{}, err
	}
	a.sessions.Sync(ctx)
	if user.Disabled {
		a.releaseLocks(ctx, actor, id)
	}
	return user, nil
}

// String names the changes for the audit, without a password.
func (c UserChange) String() string {
	var changes []string
	if c.Roles != nil {
		changes = append(changes, "roles "+strings.Join(c.Roles, ", "))
	}
	if c.Disabled != nil {
		changes = append(changes, fmt.Sprintf("disabled %t", *c.Disabled))
	}
	if c.Password != nil {
		changes = append(changes, "password")
	}
	return strings.Join(changes, "; ")
}

// CountSessions returns the numbers of live sessions of users; one without any is left out.
func (a *Accounts) CountSessions(ctx context.Context, userIDs ...string) (map[string]int, error) {
	return a.store.CountSessions(ctx, userIDs, time.Now())
}

// DeleteUser removes a user for actor and ends all sessions and locks of the user.
// models.ErrNotFound, or models.ErrLastAdmin if no administrator would be left.
func (a *Accounts) DeleteUser(ctx context.Context, actor models.UserRef, id string, client Client) error {
	err := a.audited(ctx, func(ctx context.Context) error {
		return a.store.DeleteUser(ctx, id)
	}, auditOf(models.AuditUserDeleted, actor.Email, id, client, ""))
	if err != nil {
		return err
	}
	a.sessions.Sync(ctx)
	a.releaseLocks(ctx, actor, id)
	return nil
}

// releaseLocks outlives the request. A lock that it cannot release ends with its lease, and
// cannot be used before: the user's sessions have ended.
func (a *Accounts) releaseLocks(ctx context.Context, actor models.UserRef, userID string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // a user may have thousands
	defer cancel()
	ended, err := a.locks.ReleaseUser(ctx, userID)
	a.recordEnds(ctx, models.LockEnd{How: models.LockUserDisabled, By: actor}, ended...)
	if err != nil {
		a.log.Warn("the locks of a user were not released: they end with their lease", "user", userID, "error", err)
	}
}

// Seed fills an empty database; if it is not empty, or another instance is quicker, it does
// nothing. passwords are the users' passwords in clear, by address. models.ErrUnavailable if the
// database cannot be asked, or if a password cannot be hashed in time.
func (a *Accounts) Seed(ctx context.Context, seed models.Seed, passwords map[string]string) error {
	for i, user := range seed.Users {
		hash, err := a.passwords.Hash(ctx, passwords[user.Email])
		if err != nil {
			return fmt.Errorf("fill the database: %w: %w", models.ErrUnavailable, err)
		}
		seed.Users[i].PasswordHash = hash
	}
	_, err := a.store.Seed(ctx, seed)
	return err
}

// cleanAddress cleans an address that a client typed to sign in. It does not validate it: a
// mistyped address gets the answer of a wrong password. The store and the limit on sign-ins
// both compare it by email.Key, so the limit is always for the account that is found.
func cleanAddress(email string) string {
	email = strings.ReplaceAll(strings.ToValidUTF8(email, ""), "\x00", "")
	email = strings.ToLower(strings.TrimSpace(email))
	return strings.ToValidUTF8(email[:min(len(email), 254)], "")
}
