package app

import (
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// TestMain hears SIGHUP for as long as the tests run: one that a test sends to its own
// process just before or after a program listens for it would end the tests otherwise.
func TestMain(m *testing.M) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	os.Exit(m.Run())
}
