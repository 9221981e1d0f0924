package e2e

import (
	"regexp"
	"sync"
	"testing"
	"time"
)

// slowest remembers the requests that took longest. Those that hash a password
// are kept apart: they need a processor for a tenth of a second, which is much
// more while other tests want it, too.
type slowest struct {
	mu                sync.Mutex
	what, whatHashing string
	any, hashing      time.Duration
}

func (s *slowest) note(what string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch hashes := passwordRequest.MatchString(what); {
	case hashes && took > s.hashing:
		s.whatHashing, s.hashing = what, took
	case !hashes && took > s.any:
		s.what, s.any = what, took
	}
}

var passwordRequest = regexp.MustCompile(`^(POST .*/(login|password|users)|PATCH .*/users/.*)$`)

// below fails the test if a request took longer, or one with a password twice as
// long.
func (s *slowest) below(t *testing.T, limit time.Duration) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Logf("slowest requests: %s took %v, %s took %v", s.what, s.any.Round(time.Millisecond), s.whatHashing, s.hashing.Round(time.Millisecond))
	if s.any >= limit || s.hashing >= 2*limit {
		t.Errorf("too slow: at most %v is allowed", limit)
	}
}
