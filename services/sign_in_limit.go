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

// knownNetworkAge is how long an address counts as one the account signs in from.
const knownNetworkAge = 30 * 24 * time.Hour

// AllowSignIn counts one attempt against the client's address and the account.
// An address from which the account signed in lately has an account quota of its
// own, so that nobody can use up the owner's. Refused when any decision is not
// Allowed: that is audited, once for each limit, key and window. Without Redis the
// policies' OnRedisDown says what happens, and each instance audits by itself; without
// the database the error is models.ErrUnavailable.
func (a *Accounts) AllowSignIn(ctx context.Context, address string, client Client) ([]models.Decision, error) {
	address = asTyped(address)
	known, err := a.store.KnownNetwork(ctx, address, client.Network, time.Now().Add(-knownNetworkAge))
	if err != nil {
		return nil, err
	}
	// However it is typed, it counts as the same. It is hashed: Redis keeps no address of a
	// person who may have no account.
	sum := sha256.Sum256([]byte(email.Key(address)))
	account := hex.EncodeToString(sum[:16])
	if known {
		account = client.Network + "@" + account // not after it: the key must not end in an address, which a list could have
	}
	hits := []models.Hit{
		{Policy: a.opt.LoginByIP, Key: client.Network, Cost: 1},
		{Policy: a.opt.LoginByAccount, Key: account, Cost: 1},
	}
	decisions, err := a.limiter.Take(ctx, "login", hits...)
	for i := range decisions {
		if !decisions[i].Allowed {
			a.tellLimited(ctx, address, hits, &decisions[i], client)
		}
	}
	return decisions, err
}

// tellLimited audits a refusal of one of the hits by a limit, once for each of its keys
// and windows: a flood of refused attempts must not become one of writes.
func (a *Accounts) tellLimited(ctx context.Context, address string, hits []models.Hit, refused *models.Decision, client Client) {
	asked := cmp.Or(refused.With, refused.Policy.Name)
	i := slices.IndexFunc(hits, func(hit models.Hit) bool { return hit.Policy.Name == asked })
	if i < 0 {
		return // of a policy that goes along with none of them
	}
	once := models.Policy{Name: models.SignInAuditPolicy, Limit: 1, Window: refused.Policy.Window}
	told, err := a.limiter.Take(ctx, once.Name, models.Hit{Policy: once, Key: refused.Policy.Name + ":" + hits[i].Key, Cost: 1})
	if err == nil && told[0].Allowed {
		// The attempt is refused, so nothing is acknowledged that the audit lacks.
		_ = a.audit(ctx, auditOf(models.AuditSignInLimited, address, "", client, "refused by "+refused.Policy.Name))
	}
}
