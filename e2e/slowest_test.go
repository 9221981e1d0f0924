package e2e

import (
	"regexp"
	"sync"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// slowest remembers the request that took longest, without what the machine was late meanwhile.
// Those that hash a password may take passwordWait longer.
type slowest struct {
	mu   sync.Mutex
	what string
	took time.Duration
}

// passwordWait is how long a request waits for its turn to hash a password before it gives up.
const passwordWait = 3 * time.Second

var hashes = regexp.MustCompile(`^(POST .*/(login|password|users)|PATCH .*/users/.*)$`)

func (s *slowest) note(what string, began time.Time) {
	took := time.Since(began) - servicestest.Slack(began)
	if hashes.MatchString(what) {
		took -= passwordWait
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if took > s.took {
		s.what, s.took = what, took
	}
}

// below fails the test if a request took longer.
func (s *slowest) below(t *testing.T, limit time.Duration) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.took >= limit {
		t.Errorf("%s took %v, at most %v is allowed", s.what, s.took, limit)
	}
}
