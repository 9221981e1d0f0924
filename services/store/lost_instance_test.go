package store

import (
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// An instance that freezes or is cut off inside a transaction holds the row
// that numbers the log. PostgreSQL has to end that, or nobody could revoke.
func TestLostInstanceDoesNotBlock(t *testing.T) {
	url := servicestest.StartPostgres(t)
	const timeout = time.Second
	open := func() *Store {
		s, err := Open(t.Context(), Options{URL: url, Timeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	lost, other := open(), open()
	user, err := other.CreateUser(t.Context(), "ann@example.com", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := lost.read.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec(`UPDATE revocation_head SET seq = seq + 1`); err != nil {
		t.Fatal(err)
	}
	if err := other.EndSessions(t.Context(), models.Ending{UserID: user.ID}); err == nil {
		t.Fatal("the row was not held")
	}
	servicestest.Within(t, 2*timeout+time.Second, func() bool {
		return other.EndSessions(t.Context(), models.Ending{UserID: user.ID}) == nil
	}, "the row is still held")
	read, err := other.Revocations(t.Context(), 0, time.Time{})
	// An attempt that was not answered in time may have been done.
	if err != nil || read.Head == 0 || len(read.Entries) != int(read.Head) {
		t.Fatalf("log is %+v, %v", read, err)
	}
}
