// Package e2e tests the built binary from the outside: processes of it, real
// Redis and PostgreSQL servers, and nothing but HTTP between them and the tests.
// What it may expect is the HTTP contract, never the code.
package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	_ "gatehouse/internal/app" // see BuildGatehouse
	"gatehouse/services/servicestest"
)

// binary is the gatehouse that TestMain has built.
var binary string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gatehouse-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary, err = servicestest.BuildGatehouse(dir, servicestest.BuildFlags()...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	missing, err := undocumented("../docs/swagger.json")
	if err != nil {
		missing = append(missing, err.Error())
	}
	if len(missing) > 0 {
		fmt.Fprintf(os.Stderr, "docs/swagger.json does not know that\n\t%s\n", strings.Join(missing, "\n\t"))
		return 1
	}
	return code
}
