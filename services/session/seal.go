package session

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

const sealNameBytes = 8

// sealer encrypts the copies of sessions in Redis, by XChaCha20-Poly1305. Read access to Redis
// shows nothing of them; write access can neither forge one nor move it to another session.
// The first key seals, all of them open.
type sealer struct{ keys []sealKey }

type sealKey struct {
	name []byte // starts what the key has sealed; says nothing about the key
	aead cipher.AEAD
}

var errSealed = errors.New("sealed with a key that this instance does not have")

// newSealer derives the keys from secrets; without any, from a random one.
func newSealer(secrets []string) *sealer {
	if len(secrets) == 0 {
		secrets = []string{rand.Text() + rand.Text()}
	}
	s := &sealer{}
	for _, secret := range secrets {
		derived, err := hkdf.Key(sha256.New, []byte(secret), nil, "gatehouse session copies", chacha20poly1305.KeySize+sealNameBytes)
		if err != nil {
			panic(err) // only for a length that no hash can give
		}
		aead, err := chacha20poly1305.NewX(derived[:chacha20poly1305.KeySize])
		if err != nil {
			panic(err) // only for a key of the wrong length
		}
		s.keys = append(s.keys, sealKey{derived[chacha20poly1305.KeySize:], aead})
	}
	return s
}

// seal encrypts text so that it opens only as what about says.
func (s *sealer) seal(text []byte, about string) []byte {
	key := s.keys[0]
	nonce := make([]byte, key.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	sealed := append(bytes.Clone(key.name), nonce...)
	return key.aead.Seal(sealed, nonce, text, []byte(about))
}

func (s *sealer) open(sealed []byte, about string) ([]byte, error) {
	for _, key := range s.keys {
		rest, ok := bytes.CutPrefix(sealed, key.name)
		if !ok || len(rest) < key.aead.NonceSize() {
			continue
		}
		nonce, rest := rest[:key.aead.NonceSize()], rest[key.aead.NonceSize():]
		text, err := key.aead.Open(nil, nonce, rest, []byte(about))
		if err != nil {
			return nil, fmt.Errorf("open a sealed copy: %w", err)
		}
		return text, nil
	}
	return nil, errSealed
}
