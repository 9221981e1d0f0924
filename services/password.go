package services

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
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
// so that who cannot be served in a flood is told.
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
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // never fails
	return encodeHash(salt, p.derive([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKey)), nil
}

// Matches reports whether the password has this hash. An empty hash is checked
// against a decoy and never matches.
func (p *Passwords) Matches(ctx context.Context, password, hash string) (bool, error) {
	known := hash != ""
	if !known {
		hash = p.decoy
	}
	salt, key, threads, passes, memory, err := decodeHash(hash)
	if err != nil {
		return false, err
	}
	done, err := p.slot(ctx)
	if err != nil {
		return false, fmt.Errorf("check password: %w", err)
	}
	defer done()
	got := p.derive([]byte(password), salt, passes, memory, threads, uint32(len(key)))
	return subtle.ConstantTimeCompare(got, key) == 1 && known, nil
}

func encodeHash(salt, key []byte) string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

func decodeHash(hash string) (salt, key []byte, threads uint8, passes, memory uint32, err error) {
	var version int
	fields := strings.Split(hash, "$")
	if len(fields) != 6 || fields[1] != "argon2id" {
		return nil, nil, 0, 0, 0, fmt.Errorf("stored password hash is not argon2id")
	}
	if _, err = fmt.Sscanf(fields[2]+" "+fields[3], "v=%d m=%d,t=%d,p=%d", &version, &memory, &passes, &threads); err != nil {
		return nil, nil, 0, 0, 0, fmt.Errorf("stored password hash: %w", err)
	}
	if salt, err = base64.RawStdEncoding.DecodeString(fields[4]); err != nil {
		return nil, nil, 0, 0, 0, fmt.Errorf("stored password hash: %w", err)
	}
	if key, err = base64.RawStdEncoding.DecodeString(fields[5]); err != nil {
		return nil, nil, 0, 0, 0, fmt.Errorf("stored password hash: %w", err)
	}
	return salt, key, threads, passes, memory, nil
}
