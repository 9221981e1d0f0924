package servicestest

import (
	"testing"
	"time"
)

// Eventually calls ok every 2 ms until it is true, and fails the test with msg if it is still
// false when within has passed.
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
