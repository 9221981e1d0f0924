package services

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
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

// passwordWait bounds the wait for a slot, well below what a server gives an answer,
// so that a client that cannot be served in a flood is told so.
const passwordWait = 3 * time.Second

// passwordQueue is how many may wait for each slot: more than it serves in
// passwordWait would wait for nothing.
const passwordQueue = 100

// Passwords hashes and checks passwords with argon2id. A bounded number run at
// once, half of the cores, so that a flood of sign-ins cannot starve the rest. Who
// finds too many waiting, or waits for 3 s, gets models.ErrUnavailable.
type Passwords struct {
	slots   *semaphore.Weighted
	waiting atomic.Int64
	// decoy is checked where there is no user, so that an unknown address takes
	// as long as a wrong password.
	decoy string
	// derive is argon2.IDKey; a test counts its work.
	derive func(password, salt []byte, passes, memory uint32, threads uint8, keyLen uint32) []byte
}

// NewPasswords returns a Passwords with half of the cores to use.
func NewPasswords() *Passwords {
	p := &Passwords{slots: semaphore.NewWeighted(passwordSlots()), derive: argon2.IDKey}
	p.decoy = encodeHash(make([]byte, argonSalt), make([]byte, argonKey))
	return p
}

func passwordSlots() int64 { return int64(max(1, runtime.GOMAXPROCS(0)/2)) }

// slot waits for the turn to do the work of one password; end it by done.
func (p *Passwords) slot(ctx context.Context) (done func(), err error) {
	done = func() { p.slots.Release(1) }
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

// hash does the work of Hash. The caller has a slot.
func (p *Passwords) hash(password string) string {
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // never fails
	return encodeHash(salt, p.derive([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey))
}

// renew hashes a password again whose stored hash was made with other parameters. It
// does not where the hash is of today's, nor where it would have to wait: there is a
// next time.
func (p *Passwords) renew(password, hash string) (renewed string, ok bool) {
	known, err := decodeHash(hash)
	if err != nil || known.isCurrent() || !p.slots.TryAcquire(1) {
		return "", false
	}
	defer p.slots.Release(1)
	return p.hash(password), true
}

// errUnusableHash is a stored hash that no password is checked against.
var errUnusableHash = errors.New("stored password hash cannot be used")

// Matches reports whether the password has this hash. An empty hash is checked
// against a decoy and never matches; neither does one that cannot be used, which is
// an error, too: it is of another algorithm or version, or its parameters are beyond
// what a check may cost.
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

// storedHash is a hash taken apart.
type storedHash struct {
	memory, passes uint32 // KiB, rounds
	threads        uint8
	salt, key      []byte
}

// What a stored hash may ask for: a check of the most takes some seconds and 256 MiB. A
// hash that another program wrote can ask for no more.
const (
	mostArgonMemory  = 256 * 1024 // KiB
	mostArgonTime    = 16
	mostArgonThreads = 16
	mostArgonBytes   = 64 // of salt and of key
	leastArgonBytes  = 8  // of salt; the key has twice that
)

func encodeHash(salt, key []byte) string {
	return storedHash{argonMemory, argonTime, argonThreads, salt, key}.String()
}

func (h storedHash) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, h.threads,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.key))
}

// isCurrent reports whether a hash made today would have the same parameters.
func (h storedHash) isCurrent() bool {
	return h.memory == argonMemory && h.passes == argonTime && h.threads == argonThreads && len(h.salt) == argonSalt && len(h.key) == argonKey
}

// decodeHash takes a hash apart. Its errors show nothing of salt and key.
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
	case !within(int(h.passes), 1, mostArgonTime), !within(int(h.threads), 1, mostArgonThreads), !within(int(h.memory), 8*int(h.threads), mostArgonMemory):
		return h, fmt.Errorf("%w: its parameters %q are out of bounds", errUnusableHash, fields[3])
	case !within(len(h.salt), leastArgonBytes, mostArgonBytes), !within(len(h.key), 2*leastArgonBytes, mostArgonBytes):
		return h, fmt.Errorf("%w: its salt or key is too short or too long", errUnusableHash)
	}
	return h, nil
}
