// Package background runs what goes on beside the requests until the program ends.
package background

import "context"

// Run runs task in a goroutine. stop ends the context of task, and waits until task has returned;
// if the context of stop ends first, stop returns the cause of that. stop may be called again, and
// concurrently.
func Run(task func(context.Context)) (stop func(context.Context) error) {
	life, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		task(life)
	}()
	return func(ctx context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
