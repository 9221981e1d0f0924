package store_test

import (
	"sync"
	"testing"

	"gatehouse/models"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

// Of instances that start together on no database at all, each finds the tables, and
// one seeds them. All have the same settings.
func TestSeedAtOnce(t *testing.T) {
	onNew(t, func(t *testing.T, url string) {
		seed := models.Seed{
			Users: []models.NewUser{
				{Email: "root@example.com", Roles: []string{models.RoleAdmin}}, {Email: "ann@example.com"}, {Email: "root@example.com"},
			},
			Owner: "ann@example.com", Processes: []models.ProcessFields{fields("one"), fields("two")},
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		seeded, keys := 0, map[string]bool{}
		for i := range 4 {
			wg.Go(func() {
				s, err := store.Open(t.Context(), store.Options{URL: url, Timeout: servicestest.Patience})
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				done, err := s.Seed(t.Context(), seed)
				if err != nil {
					t.Error(err)
				}
				key, err := s.Setting(t.Context(), "secret_key", string(rune('a'+i)))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				keys[key] = true
				if done {
					seeded++
				}
			})
		}
		wg.Wait()
		s := open(t, url)
		users, processes := must(s.Users(t.Context(), models.Page{})), must(s.Processes(t.Context(), models.ProcessFilter{}, models.Page{}))
		audit := must(s.Audit(t.Context(), models.AuditUserCreated, models.Page{}))
		if seeded != 1 || len(keys) != 1 || len(users.Items) != 2 || len(processes.Items) != 2 || len(audit.Items) != 2 {
			t.Errorf("%d have seeded, there are %d keys, %d users, %d processes, %d in the audit",
				seeded, len(keys), len(users.Items), len(processes.Items), len(audit.Items))
		}
		if by := processes.Items[0].UpdatedBy.Email; by != "ann@example.com" {
			t.Errorf("written by %q", by)
		}
		if must(s.Seed(t.Context(), models.Seed{Users: []models.NewUser{{Email: "late@example.com"}}})) {
			t.Error("seeded again")
		}
	})
}
