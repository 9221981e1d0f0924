package services

import (
	"cmp"
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"gatehouse/internal/require"
	"gatehouse/models"
	"gatehouse/services/lock"
)

// DefaultProcessTTL is the lease of a process lock whose TTL is not said.
const DefaultProcessTTL = 300 * time.Second

// ProcessStore is the database's side of processes.
type ProcessStore interface {
	processReader
	processWriter
}

type processReader interface {
	Process(ctx context.Context, id string) (models.Process, error)
	Processes(ctx context.Context, filter models.ProcessFilter, page models.Page) (models.List[models.Process], error)
}

type processWriter interface {
	CreateProcess(ctx context.Context, userID string, fields models.ProcessFields) (models.Process, error)
	UpdateProcess(ctx context.Context, id, userID string, fields models.ProcessFields, guard models.WriteGuard) (models.Process, error)
	DeleteProcess(ctx context.Context, id string, guard models.WriteGuard) error
}

// Processes edits processes under locks. The lock is a courtesy, the database
// decides: every write carries what its writer had read, and the store refuses
// it when somebody else wrote in between, whatever Redis believes.
type Processes struct {
	processReader
	store   ProcessStore
	locks   *lock.Locker
	tokens  *lock.Tokens
	secrets [][]byte // key the tokens of idempotent acquires
}

// NewProcesses joins the store and the locks. The first secret keys idempotent
// acquires; a repeated one also finds the grant made under another. It refuses to
// work without one of them, and with a secret of less than 32 bytes.
func NewProcesses(store ProcessStore, locks *lock.Locker, signer *lock.TokenSigner, secrets []string) (*Processes, error) {
	if err := require.All("services.NewProcesses", require.Argument{Name: "ProcessStore", Value: store}, require.Argument{Name: "Locker", Value: locks}, require.Argument{Name: "LockTokenSigner", Value: signer}); err != nil {
		return nil, err
	}
	if err := models.ValidateSecrets(secrets); err != nil {
		return nil, fmt.Errorf("services.NewProcesses: %w", err)
	}
	p := &Processes{processReader: store, store: store, locks: locks, tokens: lock.NewTokens(locks, signer)}
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, []byte(secret), nil, "gatehouse idempotent acquire", sha256.Size)
		if err != nil {
			return nil, fmt.Errorf("services.NewProcesses: %w", err)
		}
		p.secrets = append(p.secrets, key)
	}
	return p, nil
}

// Resource is the lock's name for a process.
func Resource(processID string) string { return "process:" + processID }

// Create adds a process.
func (p *Processes) Create(ctx context.Context, user models.UserRef, fields models.ProcessFields) (models.Process, error) {
	return p.store.CreateProcess(ctx, user.ID, fields)
}

// ProcessLockOptions says how to lock a process.
type ProcessLockOptions struct {
	TTL            time.Duration // zero is 300 s
	Reason         string
	Wait           time.Duration // how long to queue; zero answers at once
	IfMatch        *models.IfMatch
	IdempotencyKey string // the same key gets the same grant and token while that lives
	// Most is how many processes the user can have locked, this one included: one more is a
	// *models.TooManyLocksError. Never more stay locked; of several requests at the same time
	// that would exceed it, more than need be can be refused. While an instance cannot ask
	// Redis it counts what it knows itself. Zero is any number.
	Most int
	// Allowed is asked after a wait, before anything is done with the grant: the
	// user may have lost the right meanwhile. Nil allows.
	Allowed func(ctx context.Context) error
}

// ProcessLock is a lock on a process, and the process as read after the grant.
type ProcessLock struct {
	lock.Lock
	Token   string // the signed lock token
	Process models.Process
}

// Lock locks a process for a user: *models.NotAcquiredError says who has it. Degraded
// is said beside an error, too, if the grant was made, and given back, without Redis.
func (p *Processes) Lock(ctx context.Context, user models.UserRef, id string, opt ProcessLockOptions) (ProcessLock, error) {
	if _, err := p.store.Process(ctx, id); err != nil {
		return ProcessLock{}, err
	}
	token, others := p.idempotentTokens(user, id, opt.IdempotencyKey)
	if opt.Wait > 0 && token == "" { // no need to wait for what is refused in the end; a repeated request is not new
		if err := p.room(ctx, user, opt.Most-1, opt.Most); err != nil {
			return ProcessLock{}, err
		}
	}
	taken, err := p.acquire(ctx, opt.Wait, lock.Request{
		Resource: Resource(id), TTL: cmp.Or(opt.TTL, DefaultProcessTTL), Token: token,
		Holder: models.Holder{UserID: user.ID, Email: user.Email, Reason: opt.Reason},
	}, others)
	if err != nil {
		return ProcessLock{}, err
	}
	err = allowedAfter(ctx, opt.Wait, opt.Allowed)
	if err == nil && !taken.Repeated { // counted with this one: of two at the same time each knows of the other
		err = p.room(context.WithoutCancel(ctx), user, opt.Most, opt.Most)
	}
	var granted ProcessLock
	if err == nil { // what may end a wait must not cut off what follows it
		granted, err = p.granted(context.WithoutCancel(ctx), user, id, taken, opt)
	}
	if err == nil && !taken.Repeated && ctx.Err() != nil { // nobody is there to take it
		granted, err = ProcessLock{}, fmt.Errorf("lock process %s: %w: %w", id, models.ErrUnavailable, context.Cause(ctx))
	}
	if err != nil && !taken.Repeated {
		p.locks.ReleaseAfter(ctx, taken.Claim)
	}
	granted.Degraded = taken.Degraded
	return granted, err
}

// room refuses if the user has more locks than held; a limit of 0 is none.
func (p *Processes) room(ctx context.Context, user models.UserRef, held, limit int) error {
	if limit > 0 && p.locks.CountHeld(ctx, user.ID) > held {
		return &models.TooManyLocksError{Limit: limit}
	}
	return nil
}

// allowedAfter asks whether a request that may have waited may go on.
func allowedAfter(ctx context.Context, wait time.Duration, allowed func(context.Context) error) error {
	if wait <= 0 || allowed == nil {
		return nil
	}
	return allowed(ctx)
}

// acquire looks for a grant under the other tokens before it waits.
func (p *Processes) acquire(ctx context.Context, wait time.Duration, req lock.Request, others []string) (lock.Lock, error) {
	if wait <= 0 || len(others) > 0 {
		taken, err := p.locks.TryAcquire(ctx, req)
		for _, token := range others {
			if errors.Is(err, models.ErrNotAcquired) {
				repeat := req
				repeat.Token = token
				taken, err = p.locks.TryAcquire(ctx, repeat)
			}
		}
		if wait <= 0 || !errors.Is(err, models.ErrNotAcquired) {
			return taken, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return p.locks.Acquire(ctx, req)
}

// granted reads the process after the grant and makes the token.
func (p *Processes) granted(ctx context.Context, user models.UserRef, id string, taken lock.Lock, opt ProcessLockOptions) (ProcessLock, error) {
	process, err := p.store.Process(ctx, id)
	if err != nil {
		return ProcessLock{}, err
	}
	if !opt.IfMatch.Matches(process.Version) {
		return ProcessLock{}, &models.ConflictError{Reason: models.ErrPreconditionFailed, Current: process}
	}
	if token, ok := p.tokens.Signer.Unseal(taken.Note); ok && taken.Note != "" {
		return ProcessLock{Lock: taken, Token: token, Process: process}, nil
	}
	token, err := p.tokens.Sign(taken, user.ID, process.Version)
	if err != nil {
		return ProcessLock{}, err
	}
	if opt.IdempotencyKey != "" {
		if token, err = p.keepToken(ctx, taken, token); err != nil {
			return ProcessLock{}, err
		}
	}
	return ProcessLock{Lock: taken, Token: token, Process: process}, nil
}

// keepToken seals the token beside its grant, so that a repeated acquire answers
// the very same one; of two at once the first stays.
func (p *Processes) keepToken(ctx context.Context, taken lock.Lock, token string) (string, error) {
	sealed, err := p.tokens.Signer.Seal(token)
	if err != nil {
		return "", err
	}
	stands, err := p.locks.Note(ctx, taken, sealed)
	if err != nil {
		return "", err
	}
	if kept, ok := p.tokens.Signer.Unseal(stands); ok {
		return kept, nil
	}
	return token, nil
}

// idempotentTokens are the grant's token for a key, the same for the same user,
// process and key and unguessable without the secret, and those it may have had
// before the secrets were changed. No key: a new one, and none.
func (p *Processes) idempotentTokens(user models.UserRef, id, key string) (token string, others []string) {
	if key == "" {
		return "", nil
	}
	var tokens []string
	for _, secret := range p.secrets {
		mac := hmac.New(sha256.New, secret)
		fmt.Fprintf(mac, "%q %q %q", user.ID, id, key)
		tokens = append(tokens, hex.EncodeToString(mac.Sum(nil)))
	}
	return tokens[0], tokens[1:]
}

// guard verifies the token of a write and makes the database rule's condition.
func (p *Processes) guard(ctx context.Context, user models.UserRef, id, token string, match *models.IfMatch) (guard models.WriteGuard, grant models.LockGrant, degraded bool, err error) {
	process, err := p.store.Process(ctx, id)
	if err != nil {
		return guard, grant, false, err
	}
	if grant, degraded, err = p.tokens.Verify(ctx, Resource(id), user.ID, token); err != nil {
		return guard, grant, degraded, err
	}
	guard = models.WriteGuard{Grant: grant.Grant, GrantedVersion: grant.Version}
	if match != nil {
		if !match.Matches(process.Version) {
			return guard, grant, degraded, &models.ConflictError{Reason: models.ErrPreconditionFailed, Current: process}
		}
		guard.IfMatch = &process.Version
	}
	return guard, grant, degraded, nil
}

// Replace writes all fields under a lock. degraded: the lock was not checked in
// Redis, the database rule alone decided.
func (p *Processes) Replace(ctx context.Context, user models.UserRef, id, token string, match *models.IfMatch, fields models.ProcessFields) (process models.Process, degraded bool, err error) {
	guard, _, degraded, err := p.guard(ctx, user, id, token, match)
	if err != nil {
		return models.Process{}, degraded, err
	}
	process, err = p.store.UpdateProcess(ctx, id, user.ID, fields, guard)
	return process, degraded, err
}

// Delete removes a process under a lock; the lock ends with it.
func (p *Processes) Delete(ctx context.Context, user models.UserRef, id, token string, match *models.IfMatch) (degraded bool, err error) {
	guard, grant, degraded, err := p.guard(ctx, user, id, token, match)
	if err != nil {
		return degraded, err
	}
	if err := p.store.DeleteProcess(ctx, id, guard); err != nil {
		return degraded, err
	}
	p.locks.ReleaseAfter(ctx, grant.LockClaim)
	return degraded, nil
}

// Extend makes the time left of the holder's lock ttl from now.
func (p *Processes) Extend(ctx context.Context, user models.UserRef, id, token string, ttl time.Duration) (lock.Lock, error) {
	grant, err := p.held(ctx, user, id, token)
	if err != nil {
		return lock.Lock{}, err
	}
	holder := models.Holder{UserID: user.ID, Email: user.Email, Since: p.tokens.GrantedAt(grant)}
	return p.locks.ExtendFor(ctx, grant.LockClaim, holder, cmp.Or(ttl, DefaultProcessTTL))
}

// Unlock gives the holder's lock back.
func (p *Processes) Unlock(ctx context.Context, user models.UserRef, id, token string) (degraded bool, err error) {
	grant, err := p.held(ctx, user, id, token)
	if err != nil {
		return false, err
	}
	return p.locks.Release(ctx, grant.LockClaim)
}

// LockStatus tells how a process's lock stands.
func (p *Processes) LockStatus(ctx context.Context, id string) (models.LockStatus, error) {
	if _, err := p.store.Process(ctx, id); err != nil {
		return models.LockStatus{}, err
	}
	return p.locks.Status(ctx, Resource(id))
}

func (p *Processes) held(ctx context.Context, user models.UserRef, id, token string) (models.LockGrant, error) {
	if _, err := p.store.Process(ctx, id); err != nil {
		return models.LockGrant{}, err
	}
	return p.tokens.Open(ctx, Resource(id), user.ID, token)
}
