package store

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/services/servicestest"
)

// A page of the audit is found by an index, however rare its action is.
func TestAuditUsesAnIndex(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		url string
		all string // the index of a page of all actions
	}{
		"sqlite":   {filepath.Join(t.TempDir(), "plan.db"), "INTEGER PRIMARY KEY"},
		"postgres": {servicestest.StartPostgres(t), "audit_pkey"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.Context(), Options{URL: row.url, Timeout: servicestest.Patience, MaxConns: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if name == "postgres" { // which reads an empty table as a whole if it may
				if _, err := s.read.ExecContext(t.Context(), `SET enable_seqscan = off`); err != nil {
					t.Fatal(err)
				}
			}
			for action, index := range map[string]string{"": row.all, "lock-forced": "audit_by_action"} {
				query, args := auditPage(action, math.MaxInt64, 51)
				if steps := planOf(t, s, query, args...); !strings.Contains(steps, index) {
					t.Errorf("the page of %q does not use %s:\n%s", action, index, steps)
				}
			}
		})
	}
}
