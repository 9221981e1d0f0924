package middleware_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"gatehouse/models"
)

// fakeSessions keeps sessions in memory.
type fakeSessions struct {
	mu       sync.Mutex
	sessions map[string]models.Session
	seen     int
	looked   int
	gone     bool // all calls fail
	degraded bool
	ids      int
}

func newFakeSessions() *fakeSessions { return &fakeSessions{sessions: map[string]models.Session{}} }

// signIn begins a session of a user with the role.
func (f *fakeSessions) signIn(role string) string {
	token, _, _ := f.Create(context.Background(), models.Session{
		User: models.UserRef{ID: "7", Email: "ann@example.com"}, Roles: []string{role},
	})
	return token
}

func (f *fakeSessions) Get(_ context.Context, token string) (*models.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looked++
	if f.gone {
		return nil, fmt.Errorf("get session: %w", models.ErrUnavailable)
	}
	s, ok := f.sessions[token]
	if !ok {
		return nil, fmt.Errorf("get session: %w", models.ErrNotFound)
	}
	return &s, nil
}

func (f *fakeSessions) Touch(models.Session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen++
}

func (f *fakeSessions) Degraded(string) bool { return f.degraded }

func (f *fakeSessions) Create(_ context.Context, s models.Session) (string, models.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return "", models.Session{}, models.ErrUnavailable
	}
	f.ids++
	s.ID = fmt.Sprintf("id%d", f.ids)
	s.Hash = fmt.Sprintf("token%d", f.ids)
	s.ExpiresAt = time.Now().Add(time.Hour)
	f.sessions[s.Hash] = s
	return s.Hash, s, nil
}

func (f *fakeSessions) SaveData(_ context.Context, s models.Session, data []byte) (models.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	there, ok := f.sessions[s.Hash]
	switch {
	case f.gone:
		return models.Session{}, models.ErrUnavailable
	case !ok:
		return models.Session{}, models.ErrNotFound
	case there.Version != s.Version:
		return there, models.ErrStale
	}
	there.Data, there.Version = data, there.Version+1
	f.sessions[s.Hash] = there
	return there, nil
}

func (f *fakeSessions) Delete(_ context.Context, token string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return models.ErrUnavailable
	}
	if _, ok := f.sessions[token]; !ok {
		return models.ErrNotFound
	}
	delete(f.sessions, token)
	return nil
}

func (f *fakeSessions) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.sessions)
}
