package lock_test

import (
	"os/exec"
	"strings"
	"testing"
)

// An application with locks links no database, no embedded Redis, no YAML, no web framework and
// none of the other pillars.
func TestLinks(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "gatehouse/services/lock").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	for _, linked := range packages {
		for _, unwanted := range []string{
			"database/sql/", "github.com/jackc/pgx/", "modernc.org/", "github.com/pressly/goose/", "github.com/alicebob/miniredis/",
			"github.com/swaggo/", "github.com/gin-gonic/", "golang.org/x/crypto/argon2/", "gatehouse/services/store/",
			"gatehouse/services/ratelimit/", "gatehouse/services/session/", "gatehouse/middleware/",
		} {
			if strings.HasPrefix(linked+"/", unwanted) || strings.Contains(linked, "yaml") {
				t.Errorf("%s is linked", linked)
			}
		}
	}
	if len(packages) < 100 {
		t.Errorf("only %d packages: is the list complete?", len(packages))
	}
}
