package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/servicestest"
)

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestPoliciesAreReadAgainOnHangUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policies.yaml")
	write := func(limit string) {
		if err := os.WriteFile(path, []byte("policies:\n  - name: api\n    limit: "+limit+"\n    window: 1m\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log syncBuffer
	a := &app{config: Config{RateLimitPolicies: path}, log: slog.New(slog.NewTextHandler(&log, nil))}
	limiter := services.NewRateLimiter(services.NewRedis(services.RedisOptions{Disabled: true}), services.RateLimiterOptions{})
	limit := func() int64 {
		return limiter.Effective(models.Policy{Name: "api", Limit: 300, Window: time.Minute}).Limit
	}

	write("none")
	if err := a.watchPolicies(limiter); err == nil || !strings.HasPrefix(err.Error(), "RATE_LIMIT_POLICIES=") || !strings.Contains(err.Error(), "policies.yaml:3: ") {
		t.Fatalf("a wrong file at the start: %v", err)
	}
	write("7")
	if err := a.watchPolicies(limiter); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.close(); err != nil {
			t.Error(err)
		}
	}()
	if limit() != 7 {
		t.Fatalf("limit %d at the start", limit())
	}
	hangUp := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	write("8")
	hangUp()
	servicestest.Eventually(t, 5*time.Second, func() bool { return limit() == 8 }, "the new limit does not count")
	write("0")
	hangUp()
	servicestest.Eventually(t, 5*time.Second, func() bool { return strings.Contains(log.String(), "policies.yaml:3: ") }, "the mistake is not told")
	if limit() != 8 {
		t.Errorf("limit %d after a wrong file", limit())
	}
}
