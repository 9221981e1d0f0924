package background_test

import (
	"context"
	"errors"
	"testing"

	"gatehouse/internal/background"
)

// stop ends the task and waits for it, as long as its caller has time.
func TestRun(t *testing.T) {
	t.Parallel()
	told, finish := make(chan struct{}), make(chan struct{})
	ended := false
	stop := background.Run(func(life context.Context) {
		<-life.Done()
		close(told)
		<-finish
		ended = true
	})
	impatient, leave := context.WithCancelCause(t.Context())
	reason := errors.New("no more time")
	leave(reason)
	if err := stop(impatient); !errors.Is(err, reason) {
		t.Errorf("a task that goes on: %v", err)
	}
	<-told
	close(finish)
	for range 2 {
		if err := stop(t.Context()); err != nil || !ended {
			t.Errorf("ended: %t, %v", ended, err)
		}
	}
}
