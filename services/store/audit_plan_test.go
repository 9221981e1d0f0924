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
		url, explain string
		all          string // the index of a page of all actions
	}{
		"sqlite":   {filepath.Join(t.TempDir(), "plan.db"), "EXPLAIN QUERY PLAN ", "INTEGER PRIMARY KEY"},
		"postgres": {servicestest.StartPostgres(t), "EXPLAIN ", "audit_pkey"},
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
				plan, err := collect(t.Context(), s.read, func(scan scanner) (line string, err error) {
					if name == "postgres" {
						return line, scan.Scan(&line)
					}
					var ignored any
					return line, scan.Scan(&ignored, &ignored, &ignored, &line)
				}, row.explain+query, args...)
				if err != nil {
					t.Fatal(err)
				}
				if steps := strings.Join(plan, "\n"); !strings.Contains(steps, index) {
					t.Errorf("the page of %q does not use %s:\n%s", action, index, steps)
				}
			}
		})
	}
}
