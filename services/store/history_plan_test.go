package store

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// A page of a long history, and the last row of one, are found by indexes, and in order.
func TestHistoryUsesIndexes(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		url  string
		slow []string // steps that look at everything
	}{
		"sqlite":   {filepath.Join(t.TempDir(), "plan.db"), []string{"SCAN", "TEMP B-TREE", "AUTOMATIC"}},
		"postgres": {servicestest.StartPostgres(t), []string{"Seq Scan", "Sort", "Hash"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.Context(), Options{URL: row.url, Timeout: servicestest.Patience, MaxConns: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			// Each process has 1000 versions, of which two each are of one session.
			for _, fill := range []string{`
				WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
				INSERT INTO process_versions (process_id, version, entry, at, created_at, actor_email, how, request_id, status, title, description)
				SELECT 1 + i / 1000, 1 + i % 1000, CASE i % 2 WHEN 1 THEN i END, i, 1, '', 'edited', '', 'draft', 'title', 'description' FROM n`, `ANALYZE`} {
				err := s.change(t.Context(), func(ctx context.Context, q querier) error {
					_, err := q.ExecContext(ctx, fill)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, query := range []struct {
				text string
				args []any
			}{
				{historyPage, []any{3, int64(math.MaxInt64), 51}},
				{refusedAgain, []any{3, 1, 1, "ann@example.com", models.HowRefused, "r"}},
			} {
				steps := planOf(t, s, query.text, query.args...)
				for _, slow := range row.slow {
					if strings.Contains(steps, slow) {
						t.Errorf("%s in\n%s", slow, steps)
					}
				}
			}
		})
	}
}
