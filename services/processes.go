package services

import (
	"cmp"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"gatehouse/internal/require"
	"gatehouse/models"
	"gatehouse/services/lock"
)

// ProcessStore is the database's side of processes.
type ProcessStore interface {
	processReader
	processWriter
	draftStore
	lockEnds
	lockRequestStore
	auditWriter
	auditWith
}

type processReader interface {
	Process(ctx context.Context, id string) (models.Process, error)
	Processes(ctx context.Context, filter models.ProcessFilter, page models.Page) (models.List[models.Process], error)
	ProcessWithDrafts(ctx context.Context, id string) (models.Process, []models.DraftRef, error)
	Drafts(ctx context.Context, processID string) ([]models.DraftRef, error)
	History(ctx context.Context, processID string, page models.Page) (models.List[models.HistoryEntry], error)
	Version(ctx context.Context, processID string, version int64) (models.Process, error)
	// Titles returns the titles of processes by their id; one that is not there is left out.
	Titles(ctx context.Context, ids []string) (map[string]string, error)
}

type processWriter interface {
	CreateProcess(ctx context.Context, userID string, fields models.ProcessFields) (models.Process, error)
	UpdateProcess(ctx context.Context, id, userID string, fields models.ProcessFields, guard models.WriteGuard) (models.Process, error)
	DeleteProcess(ctx context.Context, id, userID string, guard models.WriteGuard) error
}

type lockEnds interface {
	lockEndWriter
	LockEnd(ctx context.Context, grant string) (models.LockEnd, error)
	LockEnds(ctx context.Context, resource string, since time.Time, limit int) ([]models.EndedLock, error)
	LastActivity(ctx context.Context, processID, userID, grant string) (last time.Time, asked int, err error)
}

type lockEndWriter interface {
	AddLockEnds(ctx context.Context, ends ...models.EndedLock) error
}

// LockEndRecorder stores in the background how locks ended.
type LockEndRecorder interface {
	// LockEnded must not block.
	LockEnded(ended models.EndedLock)
	// Flush stores what it has heard so far, unless ctx ends first.
	Flush(ctx context.Context)
}

// unrecorded forgets how locks ended.
type unrecorded struct{}

func (unrecorded) LockEnded(models.EndedLock) {}
func (unrecorded) Flush(context.Context)      {}

// ProcessesOptions configures Processes.
type ProcessesOptions struct {
	// Protection is how long after the holder's last sign of life other users cannot take a lock
	// over. 0 is 5 minutes.
	Protection time.Duration
	// AskTimeout is how long a holder has to answer a request for the lock. 0 is 2 minutes.
	AskTimeout time.Duration
	// Ends hears of each lock that its holder gives back; a *Recorder is one. Nil hears of none.
	Ends   LockEndRecorder
	Logger *slog.Logger // nil is slog.Default
}

// Processes edits processes under locks. The lock is a courtesy, and the database decides: each
// write carries the version that its writer had read. The store refuses it if another write
// came in between, whatever Redis says. Processes is safe for concurrent use.
//
// Any call that needs the database returns models.ErrUnavailable if it cannot be asked. Without
// Redis, methods do what the locker's OnRedisDown says: they go on and report degraded, or
// return models.ErrUnavailable. The methods name all other errors.
//
// Process returns a process; models.ErrNotFound if there is none. Processes returns a page,
// newest change first; models.ErrBadCursor if the cursor is not one of this list.
//
// Drafts returns who has a draft of a process, the latest first; none if there is no such process.
// ProcessWithDrafts is Process and Drafts in one. History returns a page of what was done to a
// process, newest first, and Version a process as it was at a version, both also after its
// deletion; models.ErrNotFound if there never was one.
type Processes struct {
	processReader
	store   ProcessStore
	locks   *lock.Locker
	tokens  *lock.Tokens
	signer  *lock.TokenSigner
	secrets [][]byte // key the tokens of idempotent acquires
	audits  auditLog
	seen    requestsSeen
	freed   chan struct{} // a lock that is asked for was given back
	opt     ProcessesOptions

	settleEvery time.Duration
}

// NewProcesses returns a Processes. The first secret keys idempotent acquires; a repeated acquire
// also finds a grant that was made with another of the secrets. The error names a missing
// argument, or a secret of less than 32 bytes. It has nothing to close.
func NewProcesses(store ProcessStore, locks *lock.Locker, signer *lock.TokenSigner, secrets []string, opt ProcessesOptions) (*Processes, error) {
	err := require.All("services.NewProcesses", require.Argument{Name: "ProcessStore", Value: store},
		require.Argument{Name: "lock.Locker", Value: locks}, require.Argument{Name: "lock.TokenSigner", Value: signer})
	if err != nil {
		return nil, err
	}
	if err := models.ValidateSecrets(secrets); err != nil {
		return nil, fmt.Errorf("services.NewProcesses: %w", err)
	}
	opt.Protection, opt.AskTimeout = cmp.Or(opt.Protection, defaultProtection), cmp.Or(opt.AskTimeout, defaultAskTimeout)
	if opt.Ends == nil {
		opt.Ends = unrecorded{}
	}
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	p := &Processes{
		processReader: store, store: store, locks: locks, tokens: lock.NewTokens(locks, signer), signer: signer,
		audits: auditLog{store, opt.Logger}, freed: make(chan struct{}, 1), opt: opt, settleEvery: settleInterval,
	}
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, []byte(secret), nil, "gatehouse idempotent acquire", sha256.Size)
		if err != nil {
			return nil, fmt.Errorf("services.NewProcesses: %w", err)
		}
		p.secrets = append(p.secrets, key)
	}
	return p, nil
}

// Resource is the name of a process's lock.
func Resource(processID string) string { return "process:" + processID }

// Create adds a process, written by user. It has no errors of its own.
func (p *Processes) Create(ctx context.Context, user models.UserRef, fields models.ProcessFields) (models.Process, error) {
	return p.store.CreateProcess(ctx, user.ID, fields)
}

// guard verifies the token of a write and makes the condition for the database.
func (p *Processes) guard(ctx context.Context, user models.UserRef, id, token string, match *models.IfMatch) (guard models.WriteGuard, grant models.LockGrant, degraded bool, err error) {
	if grant, degraded, err = p.tokens.Verify(ctx, Resource(id), user.ID, token); err != nil {
		return guard, grant, degraded, p.notHeld(ctx, id, grant, err)
	}
	guard = models.WriteGuard{Grant: grant.Grant, GrantedVersion: grant.Version, Fence: grant.Fence}
	switch {
	case match == nil || match.Any:
	case len(match.Versions) == 1:
		guard.IfMatch = &match.Versions[0]
	default: // the database can compare with one
		process, err := p.store.Process(ctx, id)
		if err != nil {
			return guard, grant, degraded, err
		}
		if !match.Matches(process.Version) {
			return guard, grant, degraded, &models.ConflictError{Reason: models.ErrPreconditionFailed, Current: process}
		}
		guard.IfMatch = &process.Version
	}
	return guard, grant, degraded, nil
}

// orNotFound explains a refusal: that there is no such process comes before all else. Only who is
// refused pays for that read. The end of ctx explains itself.
func (p *Processes) orNotFound(ctx context.Context, id string, refused error) error {
	if ctx.Err() != nil {
		return refused
	}
	if _, err := p.store.Process(ctx, id); err != nil {
		return err
	}
	return refused
}

// notHeld is orNotFound for the refusal of a lock token: how its grant ended belongs to it.
func (p *Processes) notHeld(ctx context.Context, id string, grant models.LockGrant, refused error) error {
	refused = p.orNotFound(ctx, id, refused)
	var notHeld *models.NotHeldError
	if errors.As(refused, &notHeld) && grant.Grant != "" {
		notHeld.EndedBy = p.endOf(ctx, grant.Resource, grant.Grant)
	}
	return refused
}

// endOf is how a grant ended; nil if that is not known.
func (p *Processes) endOf(ctx context.Context, resource, grant string) *models.LockEnd {
	end, err := p.store.LockEnd(ctx, grant)
	if errors.Is(err, models.ErrNotFound) { // perhaps it was given back a moment ago
		p.opt.Ends.Flush(ctx)
		end, err = p.store.LockEnd(ctx, grant)
	}
	if err == nil {
		return &end
	}
	at, known := p.locks.LeaseEnded(ctx, resource, grant)
	if !known {
		return nil
	}
	end = models.LockEnd{How: models.LockExpired, At: at}
	p.opt.Ends.LockEnded(models.EndedLock{Grant: grant, Resource: resource, End: end})
	return &end
}

// Replace writes all fields under a lock. degraded: the lock was not checked in Redis, and only
// the database decided. Errors:
//
//   - models.ErrNotFound: there is no such process,
//   - models.ErrLockTokenRequired: token is empty,
//   - *models.NotHeldError: the token does not hold the lock, or, as the database knows, not any
//     more,
//   - *models.ConflictError: match does not match (models.ErrPreconditionFailed), or another
//     write came in between (models.ErrVersionConflict).
func (p *Processes) Replace(ctx context.Context, user models.UserRef, id, token string, match *models.IfMatch, fields models.ProcessFields) (process models.Process, degraded bool, err error) {
	guard, _, degraded, err := p.guard(ctx, user, id, token, match)
	if err != nil {
		return models.Process{}, degraded, err
	}
	process, err = p.store.UpdateProcess(ctx, id, user.ID, fields, guard)
	return process, degraded, p.withStatus(ctx, err)
}

// withStatus adds to a refusal by the database how the lock stands.
func (p *Processes) withStatus(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var notHeld *models.NotHeldError
	if errors.As(err, &notHeld) {
		if status, err := p.locks.Status(ctx, notHeld.Status.Resource); err == nil {
			notHeld.Status = status
		}
	}
	return err
}

// Delete removes a process under a lock, and releases the lock. Its errors are those of Replace.
func (p *Processes) Delete(ctx context.Context, user models.UserRef, id, token string, match *models.IfMatch) (degraded bool, err error) {
	guard, grant, degraded, err := p.guard(ctx, user, id, token, match)
	if err != nil {
		return degraded, err
	}
	if err := p.store.DeleteProcess(ctx, id, user.ID, guard); err != nil {
		return degraded, p.withStatus(ctx, err)
	}
	p.locks.ReleaseAfter(ctx, grant.LockClaim)
	p.opt.Ends.LockEnded(p.endedBy(user, grant, models.LockProcessDeleted))
	return degraded, nil
}
