package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"gatehouse/models"
	"gatehouse/services/store"
)

// Users are one by their address, however it is written.
func TestUserAddressesAreComparedByKey(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		ann, rene := newUser(t, s, "ann@example.com"), newUser(t, s, "rene\u0301@example.com")
		for user, forms := range map[string][]string{
			ann.ID:  {"ann@example.com", "ANN@EXAMPLE.COM", "ａｎｎ@example.com", "𝐚nn＠example.com"},
			rene.ID: {"ren\u00e9@example.com", "rene\u0301@example.com", "REN\u00c9@example.com"},
		} {
			check(t, s.RememberNetwork(t.Context(), user, "192.0.2.0/24", start))
			for _, form := range forms {
				if got, err := s.Credentials(t.Context(), form); err != nil || got.ID != user {
					t.Errorf("%+q: user %q, %v, want %s", form, got.ID, err, user)
				}
				if !must(s.KnownNetwork(t.Context(), form, "192.0.2.0/24", start)) || must(s.KnownNetwork(t.Context(), form, "192.0.2.0/24", start.Add(time.Second))) {
					t.Errorf("%+q: its network is not known", form)
				}
				_, err := s.CreateUser(t.Context(), form, "hash", nil)
				wantError(t, err, models.ErrEmailTaken)
			}
		}
		for _, other := range []string{"\u0430nn@example.com", "ann\u200b@example.com", "rene@example.com"} {
			wantError(t, errorOf(s.Credentials(t.Context(), other)), models.ErrNotFound)
		}
	})
}

// Of those that create one user at the same time, however each writes the address,
// one does.
func TestUserAddressRace(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		instances := []*store.Store{w.s, w.other}
		forms := []string{"u%d@example.com", "ｕ%d@example.com", "U%d@Example.com", "𝐮%d＠example.com"}
		for round := range 3 {
			var created atomic.Int64
			var wg sync.WaitGroup
			for i := range 12 {
				wg.Go(func() {
					_, err := instances[i%2].CreateUser(t.Context(), fmt.Sprintf(forms[i%4], round), "hash", nil)
					switch {
					case err == nil:
						created.Add(1)
					case !errors.Is(err, models.ErrEmailTaken):
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := created.Load(); n != 1 {
				t.Fatalf("%d users in round %d", n, round)
			}
		}
	})
}

// A database from before addresses had keys: each user is found as before, also two
// whose addresses are now the same; that is told in one line, once. New ones cannot
// take an address that looks like one of theirs.
func TestAddressesFromBeforeKeys(t *testing.T) {
	onNew(t, func(t *testing.T, url string) {
		old := []string{"ann@example.com", "\uff41nn@example.com", "\u0430nn@example.com", "rene\u0301@example.com", "bob@example.com", "ren\u00e9@example.com", "\uff42ea@example.com"}
		s := open(t, url)
		ids := map[string]string{}
		for i := range old { // as an older version would have stored them
			ids[old[i]] = newUser(t, s, fmt.Sprintf("placeholder%d@example.com", i)).ID
		}
		check(t, s.Close())
		changes := append(beforeEditing(url), `DROP INDEX users_by_key`, `ALTER TABLE users DROP COLUMN email_key`, `ALTER TABLE users DROP COLUMN email_twin`, `DROP INDEX audit_by_time`, `DELETE FROM goose_db_version WHERE version_id >= 3`)
		for i, address := range old {
			changes = append(changes, fmt.Sprintf(`UPDATE users SET email = '%s' WHERE email = 'placeholder%d@example.com'`, address, i))
		}
		behind(t, url, changes...)

		for start := range 2 {
			var log bytes.Buffer
			s = openWith(t, store.Options{URL: url, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
			if lines := strings.Count(log.String(), "\n"); lines != 1-start || start == 0 && !strings.Contains(log.String(), fmt.Sprintf("users=\"[%s %s]\"", ids[old[1]], ids[old[5]])) {
				t.Errorf("start %d, the log: %s", start, &log)
			}
			for _, address := range old {
				if got, err := s.Credentials(t.Context(), address); err != nil || got.ID != ids[address] {
					t.Errorf("start %d, %+q: user %q, %v, want %s", start, address, got.ID, err, ids[address])
				}
			}
		}
		for form, user := range map[string]string{"ANN@example.com": "ann@example.com", "𝐚nn@example.com": "ann@example.com", "REN\u00c9@example.com": "ren\u00e9@example.com", "bea@example.com": "\uff42ea@example.com"} {
			if got, err := s.Credentials(t.Context(), form); err != nil || got.ID != ids[user] {
				t.Errorf("%+q: user %q, %v, want %s", form, got.ID, err, ids[user])
			}
		}
		// The one that had the key goes; the other one is found by it, and it stays taken.
		check(t, s.DeleteUser(t.Context(), ids[old[0]]))
		for _, form := range []string{"ann@example.com", "\uff41nn@example.com", "𝐚nn@example.com"} {
			wantError(t, errorOf(s.CreateUser(t.Context(), form, "hash", nil)), models.ErrEmailTaken)
			if got, err := s.Credentials(t.Context(), form); err != nil || got.ID != ids[old[1]] {
				t.Errorf("%+q: user %q, %v, want %s", form, got.ID, err, ids[old[1]])
			}
		}
	})
}
