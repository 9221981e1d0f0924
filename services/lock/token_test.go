package lock_test

import (
	"errors"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/servicestest"
)

// TestLockTokensKeepTheFenceOfTheGrant: where the server forgot a lock and its
// holder reasserts it, another may have written in between. The token
// still holds, and carries the fence that a guard refuses then.
func TestLockTokensKeepTheFenceOfTheGrant(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := lockers(t, server, 1, lock.Options{})[0]
	signer, err := lock.NewTokenSigner([]string{"0123456789abcdef0123456789abcdef"})
	if err != nil {
		t.Fatal(err)
	}
	tokens := lock.NewTokens(l, signer)
	taken := mustAcquire(t, l, request("r", alice))
	token, err := tokens.Sign(taken, "1", 7)
	if err != nil {
		t.Fatal(err)
	}
	server.Do("FLUSHALL")
	servicestest.Within(t, 2*time.Second, func() bool {
		s, err := l.Status(t.Context(), "r")
		return err == nil && s.Grant == taken.Grant && *s.Fence > *taken.Fence
	}, "the holder does not claim again")
	grant, degraded, err := tokens.Verify(t.Context(), "r", "1", token)
	if err != nil || degraded || grant.LockClaim != taken.Claim || grant.Version != 7 || grant.Fence == nil || *grant.Fence != *taken.Fence {
		t.Errorf("%+v, %t, %v", grant, degraded, err)
	}
	if _, _, err := tokens.Verify(t.Context(), "r", "1", ""); !errors.Is(err, models.ErrLockTokenRequired) {
		t.Errorf("no token: %v", err)
	}
}
