package handlers

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"gatehouse/models"
)

// What the client gave up is no fault of the server, wherever it was then.
func TestProblemOfWhatWasGivenUp(t *testing.T) {
	for _, err := range []error{
		fmt.Errorf("acquire process:1: %w: %w", models.ErrNotAcquired, context.Canceled),
		fmt.Errorf("read process 1: %w: %w", models.ErrUnavailable, context.Canceled),
	} {
		if p := problemOf(err); p.Status != http.StatusServiceUnavailable || p.Name != "unavailable" {
			t.Errorf("%v: %d %s", err, p.Status, p.Name)
		}
	}
	if p := problemOf(fmt.Errorf("acquire process:1: %w", models.ErrNotAcquired)); p.Status != http.StatusInternalServerError {
		t.Errorf("an error that nobody knows: %d", p.Status)
	}
}
