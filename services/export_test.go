package services

import (
	"context"
	"crypto/sha512"
	"fmt"
	"time"
)

// CheapPasswords makes hashing cost next to nothing where a test is about other things. That
// passwords are hashed with argon2id, and at what cost, is what TestPasswords shows.
func (a *Accounts) CheapPasswords() { a.passwords = cheapPasswords() }

func cheapPasswords() *Passwords {
	p := NewPasswords()
	p.derive = deriveCheaply
	return p
}

// deriveCheaply depends on all that argon2 depends on.
func deriveCheaply(password, salt []byte, passes, memory uint32, threads uint8, keyLen uint32) []byte {
	sum := sha512.Sum512(fmt.Append(nil, passes, memory, threads, keyLen, salt, password))
	return sum[:keyLen]
}

// cheapHash is a hash that cheapPasswords matches, with any parameters.
func cheapHash(password string, memory, passes uint32, threads uint8, saltBytes, keyBytes int) string {
	salt := make([]byte, saltBytes)
	return storedHash{memory, passes, threads, salt, deriveCheaply([]byte(password), salt, passes, memory, threads, uint32(keyBytes))}.String()
}

// HashFor is a hash of a password with today's parameters, OutdatedHash one with lesser ones.
func HashFor(password string) string { return cheapPasswords().hash(password) }

func OutdatedHash(password string) string {
	return cheapHash(password, 8*1024, 1, argonThreads, argonSalt, argonKey)
}

// SettleOnlyWhatIsFreed leaves to KeepSettling what it does when a lock is given back.
func (p *Processes) SettleOnlyWhatIsFreed() { p.settleEvery = time.Hour }

// SettleRound is one round of KeepSettling over all requests.
func (p *Processes) SettleRound(ctx context.Context) { p.settleRound(ctx, "") }
