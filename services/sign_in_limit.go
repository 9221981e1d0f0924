package services

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"gatehouse/models"
	"gatehouse/models/email"
)

// knownNetworkAge is how long a network counts as known after a sign-in to the account.
const knownNetworkAge = 30 * 24 * time.Hour

// AllowSignIn counts one attempt for the client's network and one for the account. The attempt
// is refused if a decision is not Allowed; that is audited, once for each limit, key and window.
// A network from which the account signed in during the last 30 days has its own quota for the
// account, so that other clients cannot use up the owner's.
//
// Without Redis the OnRedisDown of the policies says what happens: each instance counts and
// audits by itself, or the error is models.ErrUnavailable.
func (a *Accounts) AllowSignIn(ctx context.Context, address string, client Client) ([]models.Decision, error) {
	address = cleanAddress(address)
	known, err := a.store.KnownNetwork(ctx, address, client.Network, time.Now().Add(-knownNetworkAge))
	if err != nil {
		return nil, err
	}
	// All spellings of an address count together. Redis gets only a hash: the address may belong
	// to a person without an account.
	sum := sha256.Sum256([]byte(email.Key(address)))
	account := hex.EncodeToString(sum[:16])
	if known {
		account = client.Network + "@" + account // first: a key that ends in an address could match an allow list
	}
	hits := []models.Hit{
		{Policy: a.opt.LoginByIP, Key: client.Network, Cost: 1},
		{Policy: a.opt.LoginByAccount, Key: account, Cost: 1},
	}
	decisions, err := a.limiter.Take(ctx, "login", hits...)
	for i := range decisions {
		if !decisions[i].Allowed {
			a.auditLimited(ctx, address, hits, &decisions[i], client)
		}
	}
	return decisions, err
}

// auditLimited audits that a limit refused one of the hits, once for each key and window: a
// flood of refused attempts must not become a flood of writes.
func (a *Accounts) auditLimited(ctx context.Context, address string, hits []models.Hit, refused *models.Decision, client Client) {
	name := cmp.Or(refused.With, refused.Policy.Name)
	i := slices.IndexFunc(hits, func(hit models.Hit) bool { return hit.Policy.Name == name })
	if i < 0 {
		return // the policy belongs to none of the hits
	}
	once := models.Policy{Name: models.SignInAuditPolicy, Limit: 1, Window: refused.Policy.Window}
	first, err := a.limiter.Take(ctx, once.Name, models.Hit{Policy: once, Key: refused.Policy.Name + ":" + hits[i].Key, Cost: 1})
	if err == nil && first[0].Allowed {
		// An error needs no answer: the attempt is refused anyway.
		_ = a.audit(ctx, auditOf(models.AuditSignInLimited, address, "", client, "refused by "+refused.Policy.Name))
	}
}
