// Package e2e tests the built binary from the outside: processes of it, real
// Redis and PostgreSQL servers, and nothing but HTTP between them and the tests.
// What it may expect is the HTTP contract, never the code.
package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/services/servicestest"
)

// The programs that TestMain has built. Most tests run the one that people run: with the race
// detector it needs seven times as much of the processors.
var binary, raceBinary string

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
	plain, race := filepath.Join(dir, "plain"), filepath.Join(dir, "race")
	if err := errors.Join(os.Mkdir(plain, 0o700), os.Mkdir(race, 0o700)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binary, err = servicestest.BuildGatehouse(plain, "-race=false")
	if err == nil {
		raceBinary, err = servicestest.BuildGatehouse(race)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := servicestest.Unchanged(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	chromium.end()
	shell.end()
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
