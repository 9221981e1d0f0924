package servicestest

import (
	"testing"
	"time"
)

// Eventually polls ok until it is true and fails the test if it still is not
// when within has passed.
func Eventually(t testing.TB, within time.Duration, ok func() bool, msg string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s (waited %v)", msg, within)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
