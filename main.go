// Command gatehouse serves edit locks, sessions and rate limits on Redis for a
// small process editor, and keeps serving safely while Redis does not.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"gatehouse/internal/app"
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
	err := app.Run(ctx, os.Args[1:], os.Getenv, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "gatehouse:", err)
		os.Exit(1)
	}
}
