package app

import (
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// isolated is a variable of a test that runs in a process of its own, see TestHangUpDuringTheStart.
const isolated = "GATEHOUSE_TEST_ISOLATED"

// TestMain hears SIGHUP for as long as the tests run: one that a test sends to its own
// process just before or after a program listens for it would end the tests otherwise.
func TestMain(m *testing.M) {
	if os.Getenv(isolated) == "" {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	os.Exit(m.Run())
}
