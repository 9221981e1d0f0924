package services

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sync/semaphore"

	"gatehouse/models"
)

// The argon2id parameters of OWASP's Password Storage Cheat Sheet: 19 MiB, two
// passes, one lane.
const (
	argonMemory  = 19 * 1024 // KiB
	argonTime    = 2
	argonThreads = 1
	argonKey     = 32
	argonSalt    = 16
)

// passwordWait limits the wait for a slot. It is well below the server's timeout for an answer,
// so that in a flood of sign-ins each client gets an answer.
const passwordWait = 3 * time.Second

// passwordQueue is how many requests may wait for each slot. A slot cannot serve more within
// passwordWait.
const passwordQueue = 100

// passwordRest is how long no password must have been worked on before its memory is given back.
const passwordRest = time.Second

// Passwords hashes and checks passwords with argon2id. It uses at most half of the cores at a
// time, so that a flood of sign-ins leaves room for other requests. A call that finds too many
// waiting, or waits for 3 s, returns models.ErrUnavailable. It is safe for concurrent use and
// needs neither Redis nor the database.
type Passwords struct {
	slots   *semaphore.Weighted
	waiting atomic.Int64
	// decoy is the hash to check for an unknown user, so that an unknown address takes as long
	// as a wrong password.
	decoy string
	// derive is argon2.IDKey; a test counts its work.
	derive func(password, salt []byte, passes, memory uint32, threads uint8, keyLen uint32) []byte
	// rest gives the memory of the work back to the system: the runtime would collect that much
	// garbage before it looked again.
	rest *time.Timer
}

// NewPasswords returns a Passwords. It has nothing to close.
func NewPasswords() *Passwords {
	p := &Passwords{slots: semaphore.NewWeighted(passwordSlots()), derive: argon2.IDKey}
	p.decoy = encodeHash(make([]byte, argonSalt), make([]byte, argonKey))
	p.restWith(debug.FreeOSMemory)
	return p
}

func passwordSlots() int64 { return int64(max(1, runtime.GOMAXPROCS(0)/2)) }

// restWith makes free what is called when no password was worked on for passwordRest.
func (p *Passwords) restWith(free func()) {
	p.rest = time.AfterFunc(passwordRest, free)
	p.rest.Stop() // until there was work
}

// slot waits for a free slot for the work of one password; done frees it again.
func (p *Passwords) slot(ctx context.Context) (done func(), err error) {
	done = func() {
		p.slots.Release(1)
		p.rest.Reset(passwordRest)
	}
	if p.slots.TryAcquire(1) {
		return done, nil
	}
	defer p.waiting.Add(-1)
	if p.waiting.Add(1) > passwordQueue*passwordSlots() {
		return nil, fmt.Errorf("too many passwords to check at once: %w", models.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, passwordWait)
	defer cancel()
	if err := p.slots.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("wait to check a password: %w: %w", models.ErrUnavailable, err)
	}
	return done, nil
}

// Hash returns the password's hash in the PHC string format.
func (p *Passwords) Hash(ctx context.Context, password string) (string, error) {
	done, err := p.slot(ctx)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	defer done()
	return p.hash(password), nil
}

// hash does the work of Hash; the caller has a slot.
func (p *Passwords) hash(password string) string {
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // never fails
	return encodeHash(salt, p.derive([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey))
}

// renew hashes a password again if its stored hash has other parameters than today's. It does
// not wait for a slot: the next sign-in will try again.
func (p *Passwords) renew(password, hash string) (renewed string, ok bool) {
	known, err := decodeHash(hash)
	if err != nil || known.isCurrent() || !p.slots.TryAcquire(1) {
		return "", false
	}
	defer p.slots.Release(1)
	return p.hash(password), true
}

// errUnusableHash says that no password can be checked against a stored hash.
var errUnusableHash = errors.New("stored password hash cannot be used")

// Matches reports whether the password has this hash. An empty hash never matches, after the
// time of a check. Neither does a hash of another algorithm or version, or one whose check
// would cost too much: that is also an error.
func (p *Passwords) Matches(ctx context.Context, password, hash string) (bool, error) {
	known, unusable := decodeHash(hash)
	if unusable != nil {
		if known, _ = decodeHash(p.decoy); hash == "" {
			unusable = nil
		}
		hash = ""
	}
	done, err := p.slot(ctx)
	if err != nil {
		return false, fmt.Errorf("check password: %w", err)
	}
	defer done()
	got := p.derive([]byte(password), known.salt, known.passes, known.memory, known.threads, uint32(len(known.key)))
	return subtle.ConstantTimeCompare(got, known.key) == 1 && hash != "", unusable
}

// storedHash is a parsed hash.
type storedHash struct {
	memory, passes uint32 // KiB, rounds
	threads        uint8
	salt, key      []byte
}

// Bounds of a stored hash, which another program may have written. A check at the bounds takes
// some seconds and 256 MiB.
const (
	maxArgonMemory  = 256 * 1024 // KiB
	maxArgonTime    = 16
	maxArgonThreads = 16
	maxArgonBytes   = 64 // of salt and of key
	minArgonBytes   = 8  // of salt; the key has at least twice as many
)

func encodeHash(salt, key []byte) string {
	return storedHash{argonMemory, argonTime, argonThreads, salt, key}.String()
}

func (h storedHash) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, h.threads,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.key))
}

// isCurrent reports whether a new hash would have the same parameters.
func (h storedHash) isCurrent() bool {
	return h.memory == argonMemory && h.passes == argonTime && h.threads == argonThreads && len(h.salt) == argonSalt && len(h.key) == argonKey
}

// decodeHash parses a hash. Its errors show neither salt nor key.
func decodeHash(hash string) (h storedHash, err error) {
	fields := strings.Split(hash, "$")
	if len(hash) > 512 || len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" {
		return h, fmt.Errorf("%w: it is not argon2id", errUnusableHash)
	}
	if fields[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return h, fmt.Errorf("%w: its version is %.20q, not v=%d", errUnusableHash, fields[2], argon2.Version)
	}
	if _, err := fmt.Sscanf(fields[3], "m=%d,t=%d,p=%d", &h.memory, &h.passes, &h.threads); err != nil {
		return h, fmt.Errorf("%w: its parameters are %.60q", errUnusableHash, fields[3])
	}
	var saltErr, keyErr error
	h.salt, saltErr = base64.RawStdEncoding.DecodeString(fields[4])
	h.key, keyErr = base64.RawStdEncoding.DecodeString(fields[5])
	if saltErr != nil || keyErr != nil || h.String() != hash {
		return h, fmt.Errorf("%w: it is not in the PHC string format", errUnusableHash)
	}
	switch within := func(n, least, most int) bool { return least <= n && n <= most }; {
	case !within(int(h.passes), 1, maxArgonTime), !within(int(h.threads), 1, maxArgonThreads), !within(int(h.memory), 8*int(h.threads), maxArgonMemory):
		return h, fmt.Errorf("%w: its parameters %q are out of bounds", errUnusableHash, fields[3])
	case !within(len(h.salt), minArgonBytes, maxArgonBytes), !within(len(h.key), 2*minArgonBytes, maxArgonBytes):
		return h, fmt.Errorf("%w: its salt or key is too short or too long", errUnusableHash)
	}
	return h, nil
}
