package store_test

import (
	"testing"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// A call that waits for the end of all other sessions finds the kept one live: PostgreSQL looks
// at its row again, but at those that say which sessions are live as they were before.
func TestKeptSessionIsFoundAfterAWait(t *testing.T) {
	w := keptPostgres.emptied(t)
	others := map[string]string{
		"the user's others": `UPDATE users SET epoch = epoch + 1; UPDATE sessions SET epoch = epoch + 1 WHERE id = 'id-kept'`,
		"everybody else's":  `UPDATE sessions SET era = era + 1 WHERE id = 'id-kept'; UPDATE revocation_head SET era = era + 1`,
	}
	calls := map[string]func(t *testing.T, kept models.Session) error{
		"touch": func(t *testing.T, kept models.Session) error {
			return touch(t, w.s, kept.Hash, kept.LastSeen, kept.IdleAt)
		},
		"end by id": func(t *testing.T, kept models.Session) error {
			return w.s.EndSessions(t.Context(), models.Ending{UserID: kept.User.ID, ID: kept.ID})
		},
	}
	for ended, query := range others {
		for name, call := range calls {
			t.Run(name+" after the end of "+ended, func(t *testing.T) {
				keptPostgres.emptied(t)
				kept := session(newUser(t, w.s, "ann@example.com"), "kept")
				insert(t, w.s, kept)
				end := must(w.raw.BeginTx(t.Context(), nil))
				defer end.Rollback()
				must(end.ExecContext(t.Context(), query))
				answer := make(chan error, 1)
				go func() { answer <- call(t, kept) }()
				servicestest.Eventually(t, func() bool {
					var waiting bool
					err := w.raw.QueryRowContext(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_stat_activity
						WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waiting)
					return err == nil && waiting
				}, "it does not wait")
				check(t, end.Commit())
				if err := <-answer; err != nil {
					t.Errorf("a live session: %v", err)
				}
			})
		}
	}
}
