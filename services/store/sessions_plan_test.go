package store

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// Reading, counting and listing sessions never looks at everybody's.
func TestSessionQueriesUseAnIndex(t *testing.T) {
	queries := map[string]struct {
		text  string
		first any
		index []string // any of them: SQLite's and PostgreSQL's names
	}{
		"read":  {oneSession, "hash", []string{"sqlite_autoindex_sessions_1", "sessions_pkey"}},
		"list":  {sessionsOfUser, 1, []string{"sessions_by_user"}},
		"count": {countOf(1), 1, []string{"sessions_by_user"}},
	}
	for name, url := range map[string]func(*testing.T) string{
		"sqlite":   func(t *testing.T) string { return filepath.Join(t.TempDir(), "plan.db") },
		"postgres": func(t *testing.T) string { return servicestest.StartPostgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.Context(), Options{URL: url(t), Timeout: servicestest.Patience, MaxConns: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if name == "postgres" { // which reads an empty table as a whole if it may
				if _, err := s.read.ExecContext(t.Context(), `SET enable_seqscan = off`); err != nil {
					t.Fatal(err)
				}
			}
			for what, query := range queries {
				text := planOf(t, s, query.text, query.first, time.Now().UnixMicro())
				indexed := slices.ContainsFunc(query.index, func(index string) bool { return strings.Contains(text, index) })
				if !indexed || strings.Contains(text, "SCAN sessions") || strings.Contains(text, "Seq Scan on sessions") {
					t.Errorf("%s looks at all sessions:\n%s", what, text)
				}
			}
		})
	}
}
