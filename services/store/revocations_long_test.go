package store_test

import (
	"gatehouse/models"

	"fmt"
	"testing"
	"time"
)

// An instance that was away while the log grew reads its newest part, within the
// timeout: 500,000 entries take longer than that, and it would never catch up.
func TestRevocationsOfALongLog(t *testing.T) {
	const all, most = 20_010, 20_000
	// On PostgreSQL only, for the time that it takes: SQLite is asked the same query.
	w := keptPostgres.emptied(t)
	behind(t, w.url, fmt.Sprintf(`INSERT INTO revocations (seq, mark, at, session_hash) SELECT i, i, %d, 'another' FROM generate_series(1, %d) AS i`, start.UnixMicro(), all),
		fmt.Sprintf(`UPDATE revocation_head SET seq = %d, mark = %[1]d`, all))
	for name, read := range map[string]models.Revocations{
		"after": must(w.s.Revocations(t.Context(), 1, time.Time{})), "since": must(w.s.Revocations(t.Context(), 0, start.Add(-time.Minute))),
	} {
		if n := len(read.Entries); n != most || read.Entries[0].Seq != all-most+1 || read.Entries[n-1].Seq != all || read.Head != all {
			t.Errorf("%s: %d entries from %d to %d of %d, want the newest %d", name, n, read.Entries[0].Seq, read.Entries[n-1].Seq, read.Head, most)
		}
	}
}
