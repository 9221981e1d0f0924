package services

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"gatehouse/models"
)

// knownNetworkAge is how long an address counts as one the account signs in from.
const knownNetworkAge = 30 * 24 * time.Hour

// AllowSignIn counts one attempt against the client's address and the account.
// An address from which the account signed in lately has an account quota of its
// own, so that nobody can use up the owner's. Refused when any decision is not
// Allowed.
func (a *Accounts) AllowSignIn(ctx context.Context, email string, client Client) ([]models.Decision, error) {
	email = looseEmail(email)
	known, err := a.store.KnownNetwork(ctx, email, client.Network, time.Now().Add(-knownNetworkAge))
	if err != nil {
		return nil, err
	}
	// Hashed: the address of somebody who may have no account is not kept in Redis.
	sum := sha256.Sum256([]byte(email))
	account := hex.EncodeToString(sum[:16])
	if known {
		account = client.Network + "@" + account // not after it: the key must not end in an address, which a list could have
	}
	hits := []models.Hit{
		{Policy: a.opt.LoginByIP, Key: client.Network, Cost: 1},
		{Policy: a.opt.LoginByAccount, Key: account, Cost: 1},
	}
	decisions, err := a.limiter.Take(ctx, "login", hits...)
	for i, decision := range decisions {
		if !decision.Allowed && i < len(hits) {
			a.tellLimited(ctx, email, hits[i], client)
		}
	}
	return decisions, err
}

// tellLimited audits a refusal by a limit, once for each of its keys and windows: a
// flood of refused attempts must not become one of writes.
func (a *Accounts) tellLimited(ctx context.Context, email string, refused models.Hit, client Client) {
	once := models.Policy{Name: "login-audit", Limit: 1, Window: a.limiter.Effective(refused).Window}
	told, err := a.limiter.Take(ctx, once.Name, models.Hit{Policy: once, Key: refused.Policy.Name + ":" + refused.Key, Cost: 1})
	if err == nil && told[0].Allowed {
		a.record(ctx, models.AuditSignInLimited, email, "", client, "refused by "+refused.Policy.Name)
	}
}
