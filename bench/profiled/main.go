// Command profiled is gatehouse with a CPU profile of itself. On SIGUSR1 it writes the profile to
// the file profile, in the folder in which it runs.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"gatehouse/internal/app"
)

func main() {
	var profile bytes.Buffer
	err := pprof.StartCPUProfile(&profile)
	if err == nil {
		go write(&profile)
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = app.Run(ctx, nil, os.Getenv, os.Stdout)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "profiled:", err)
		os.Exit(1)
	}
}

func write(profile *bytes.Buffer) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	<-asked
	pprof.StopCPUProfile()
	err := os.WriteFile("profile.part", profile.Bytes(), 0o600)
	if err == nil {
		err = os.Rename("profile.part", "profile")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "profiled:", err)
	}
}
