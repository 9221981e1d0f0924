// Command gatehouse serves edit locks, sessions and rate limits on Redis for a
// small process editor, and keeps serving safely while Redis does not.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

//	@title						gatehouse
//	@version					1
//	@description				Edit processes under locks. Sign in with POST /auth/login, copy the token, press Authorize and type "Bearer TOKEN". Signed in on the page, Try it out works without.
//	@license.name				MIT
//	@BasePath					/api/v1
//	@securityDefinitions.apikey	Bearer
//	@in							header
//	@name						Authorization
//	@description				type: Bearer TOKEN

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gatehouse:", err)
		os.Exit(1)
	}
}

const usage = `gatehouse takes no arguments: it is configured by environment variables, or a
file .env in the current folder. See .env.example for all of them.
`

// run is the program as a value: it serves until ctx ends, drains, and returns
// nil if nothing was cut off.
func run(ctx context.Context, args []string, getenv func(string) string, stdout io.Writer) error {
	if len(args) > 0 {
		_, err := io.WriteString(stdout, usage)
		if args[0] != "-h" && args[0] != "--help" {
			return fmt.Errorf("unknown argument %q", args[0])
		}
		return err
	}
	config, err := LoadConfig(getenv, ".env")
	if err != nil {
		return err
	}
	app, err := newApp(ctx, config, stdout)
	if err != nil {
		return err
	}
	return app.serve(ctx)
}
