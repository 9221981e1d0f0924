package middleware_test

import (
	"os/exec"
	"strings"
	"testing"
)

// An application with rate limits links no database, no migrations, no embedded Redis, no
// API documentation and no YAML but what Gin itself brings along.
func TestLinks(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`,
		"gatehouse/services/ratelimit", "gatehouse/middleware").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := 0
	for line := range strings.Lines(string(out)) {
		names := strings.Fields(line)
		packages++
		if names[0] == "database/sql" {
			t.Error("database/sql is linked")
		}
		for _, unwanted := range []string{
			"github.com/jackc/pgx/", "modernc.org/", "github.com/pressly/goose/", "github.com/alicebob/miniredis/", "github.com/swaggo/",
			"golang.org/x/crypto/argon2/", "gatehouse/services/store/", "gatehouse/services/lock/", "gatehouse/services/session/",
		} {
			if strings.HasPrefix(names[0]+"/", unwanted) {
				t.Errorf("%s is linked", names[0])
			}
		}
		for _, imported := range names[1:] {
			if strings.Contains(imported, "yaml") && !strings.HasPrefix(names[0], "github.com/gin-gonic/gin/") && !strings.Contains(names[0], "yaml") {
				t.Errorf("%s is linked, by %s", imported, names[0])
			}
		}
	}
	if packages < 100 {
		t.Errorf("only %d packages: is the list complete?", packages)
	}
}
