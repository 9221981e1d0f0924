package servicestest

import (
	"errors"
	"net"
	"os"
	"testing"
)

func TestPostgres(t *testing.T) {
	needPostgres(t)
	t.Run("the next server starts after the first has ended", func(t *testing.T) {
		StartPostgresServer(t).Stop()
		StartPostgresServer(t).Do(t, "SELECT 1")
	})
	t.Run("one whose port is taken ends at its start", func(t *testing.T) {
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		account, err := serverAccount()
		if err != nil {
			t.Fatal(err)
		}
		from, err := pristine()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := copyPostgres(account, from.dir, taken.Addr().String()); !errors.Is(err, errEnded) {
			t.Errorf("%v, want %v", err, errEnded)
		}
		if _, err := os.Stat(from.dir); err != nil {
			t.Errorf("the data to copy went with a server: %v", err)
		}
	})
}
