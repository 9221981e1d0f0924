package store_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"
)

// An instance that was away while the log grew reads its newest part, within the
// timeout: 500,000 entries take longer than that, and it would never catch up.
func TestRevocationsOfALongLog(t *testing.T) {
	const all, most = 20_010, 20_000
	onBoth(t, func(t *testing.T, url string) {
		s := open(t, url)
		driver := "sqlite"
		numbers := fmt.Sprintf(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)`, all)
		if strings.HasPrefix(url, "postgres") {
			driver = "pgx"
		}
		raw, err := sql.Open(driver, url)
		check(t, err)
		defer raw.Close()
		_, err = raw.ExecContext(t.Context(), numbers+fmt.Sprintf(`
			INSERT INTO revocations (seq, mark, at, session_hash) SELECT i, i, %d, 'another' FROM n`, start.UnixMicro()))
		check(t, err)
		_, err = raw.ExecContext(t.Context(), fmt.Sprintf(`UPDATE revocation_head SET seq = %d, mark = %[1]d`, all))
		check(t, err)

		after, since := must(s.Revocations(t.Context(), 1, time.Time{})), must(s.Revocations(t.Context(), 0, start.Add(-time.Minute)))
		for name, read := range map[string]struct {
			first, last, head int64
			n                 int
		}{
			"after": {after.Entries[0].Seq, after.Entries[len(after.Entries)-1].Seq, after.Head, len(after.Entries)},
			"since": {since.Entries[0].Seq, since.Entries[len(since.Entries)-1].Seq, since.Head, len(since.Entries)},
		} {
			if read.n != most || read.first != all-most+1 || read.last != all || read.head != all {
				t.Errorf("%s: %+v, want the newest %d", name, read, most)
			}
		}
	})
}
