package lock

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/gorilla/securecookie"

	"gatehouse/internal/require"
	"gatehouse/models"
)

// TokenSigner signs the lock tokens that leave the server and seals what has to
// be kept of them in Redis. The first secret signs, all verify. To change it without
// breaking the tokens in use, give every instance the new one as a later one, then as
// the first. Drop the old one when MaxHold has passed.
type TokenSigner struct {
	signed []securecookie.Codec
	sealed []securecookie.Codec
}

// NewTokenSigner returns a TokenSigner. The error says that there is no secret, or that one
// has less than 32 bytes.
func NewTokenSigner(secrets []string) (*TokenSigner, error) {
	if err := models.ValidateSecrets(secrets); err != nil {
		return nil, fmt.Errorf("lock.NewTokenSigner: %w", err)
	}
	t := &TokenSigner{}
	for _, secret := range secrets {
		signing, err := deriveKey(secret, "gatehouse lock token")
		if err != nil {
			return nil, err
		}
		sealHash, err := deriveKey(secret, "gatehouse sealed lock token: authentication")
		if err != nil {
			return nil, err
		}
		sealBlock, err := deriveKey(secret, "gatehouse sealed lock token: encryption")
		if err != nil {
			return nil, err
		}
		t.signed = append(t.signed, newCodec(signing, nil))
		t.sealed = append(t.sealed, newCodec(sealHash, sealBlock))
	}
	return t, nil
}

// newCodec takes bytes: securecookie's JSONEncoder would read the JSON of each token as a stream,
// which takes as long as all else that is done to it. Grants end by their own time, not by the age
// of the signature.
func newCodec(hash, block []byte) securecookie.Codec {
	return securecookie.New(hash, block).SetSerializer(securecookie.NopEncoder{}).MaxAge(0)
}

func deriveKey(secret, purpose string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key for %s: %w", purpose, err)
	}
	return key, nil
}

// sign returns the lock token of a grant. The error is one of encoding: a token of more
// than 4 KB.
func (t *TokenSigner) sign(grant models.LockGrant) (token string, err error) {
	text, err := json.Marshal(grant)
	if err == nil {
		token, err = securecookie.EncodeMulti("lock", text, t.signed...)
	}
	if err != nil {
		return "", fmt.Errorf("sign lock token: %w", err)
	}
	return token, nil
}

// open returns the grant of a rightly signed token.
func (t *TokenSigner) open(token string) (grant models.LockGrant, ok bool) {
	var text []byte
	if securecookie.DecodeMulti("lock", token, &text, t.signed...) != nil {
		return grant, false
	}
	err := json.Unmarshal(text, &grant)
	return grant, err == nil
}

// Seal encrypts a lock token for Redis, as metadata of its lock.
func (t *TokenSigner) Seal(token string) (string, error) {
	sealed, err := securecookie.EncodeMulti("note", []byte(token), t.sealed...)
	if err != nil {
		return "", fmt.Errorf("seal lock token: %w", err)
	}
	return sealed, nil
}

// Unseal returns the lock token that was sealed; false if none of the secrets sealed it.
func (t *TokenSigner) Unseal(sealed string) (string, bool) {
	var token []byte
	err := securecookie.DecodeMulti("note", sealed, &token, t.sealed...)
	return string(token), err == nil
}

// Tokens are the signed tokens under which locks leave the server, for holders that are
// clients: the TokenSigner signs, and the Locker knows whether they still hold.
// middleware.RequireLock asks it.
type Tokens struct {
	locks  *Locker
	signer *TokenSigner
}

// NewTokens returns Tokens of both. It panics without one of them: that is a mistake in the
// program.
func NewTokens(locks *Locker, signer *TokenSigner) *Tokens {
	require.Must("lock.NewTokens", require.Argument{Name: "Locker", Value: locks}, require.Argument{Name: "TokenSigner", Value: signer})
	return &Tokens{locks: locks, signer: signer}
}

// Sign makes the token of a lock just granted, for one user, or for any bearer of the
// token if userID is empty. version is that of what the user read after the grant, 0 if there is no
// such thing. The token ends with the longest hold of the lock.
func (t *Tokens) Sign(lock Lock, userID string, version int64) (string, error) {
	return t.signer.sign(models.LockGrant{
		LockClaim: lock.Claim, UserID: userID, Fence: lock.Fence, Version: version, End: lock.Holder.Since.Add(t.locks.opt.MaxHold),
	})
}

// GrantedAt is when the lock was granted for which Sign made the token.
func (t *Tokens) GrantedAt(grant models.LockGrant) time.Time {
	return grant.End.Add(-t.locks.opt.MaxHold)
}

// Verify answers what the token was signed for while it holds the resource's lock
// for that user. An empty token is models.ErrLockTokenRequired; one that is forged,
// another user's or resource's, ended or no longer the holder's is a
// *models.NotHeldError. Without Redis (open) it refuses only a lock that this instance knows
// to be over, and degraded is true; closed, the error is models.ErrUnavailable.
func (t *Tokens) Verify(ctx context.Context, resource, userID, token string) (grant models.LockGrant, degraded bool, err error) {
	if grant, err = t.Open(ctx, resource, userID, token); err != nil {
		return grant, false, err
	}
	degraded, err = t.locks.Check(ctx, grant.LockClaim)
	return grant, degraded, err
}

// Open is Verify without asking whether the lock is still held, for Locker.Extend and
// Release, which ask that themselves. Redis is asked only about a token that is refused. Beside the
// error for a token that has ended, or that Verify finds not to hold the lock any more, they return
// the grant that it was signed for.
func (t *Tokens) Open(ctx context.Context, resource, userID, token string) (models.LockGrant, error) {
	if token == "" {
		return models.LockGrant{}, fmt.Errorf("lock %s: %w", resource, models.ErrLockTokenRequired)
	}
	grant, ok := t.signer.open(token)
	if !ok || grant.UserID != userID || grant.Resource != resource {
		grant = models.LockGrant{}
	}
	if t.locks.opt.Clock().Before(grant.End) {
		return grant, nil
	}
	status, err := t.locks.Status(ctx, resource)
	if err != nil {
		return models.LockGrant{}, err
	}
	return grant, &models.NotHeldError{Status: status}
}
