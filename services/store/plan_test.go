package store

import (
	"strings"
	"testing"
)

// planOf is how the database would run a query, a line for each step.
func planOf(t *testing.T, s *Store, query string, args ...any) string {
	t.Helper()
	explain, postgres := "EXPLAIN QUERY PLAN ", s.skipLocked != ""
	if postgres {
		explain = "EXPLAIN "
	}
	steps, err := collect(t.Context(), s.read, func(row scanner) (step string, err error) {
		if postgres {
			return step, row.Scan(&step)
		}
		var ignored any
		return step, row.Scan(&ignored, &ignored, &ignored, &step)
	}, explain+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(steps, "\n")
}
