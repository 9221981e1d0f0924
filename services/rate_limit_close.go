package services

import (
	"context"
	"errors"
	"fmt"

	"gatehouse/models"
)

// goBackground runs task until Close waits for it; false if it is closed.
func (l *RateLimiter) goBackground(task func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.tasks.Go(task)
	return true
}

// Close gives back what is left of the blocks of leased policies, and waits for
// accounting under way, but not longer than ctx. What could not be given back
// counts until a window after its lease. Call it when no more requests come.
func (l *RateLimiter) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	var errs []error
	for key, s := range l.leases.takeAll() {
		if err := l.askForBlock(ctx, key, s.policy, 0, 0, 0, s.owed).err; err != nil {
			errs = append(errs, fmt.Errorf("give back %s: %w", s.policy.Name, err))
			break // Redis is away: each further one would only cost its deadline
		}
	}
	done := make(chan struct{})
	go func() {
		l.tasks.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("close rate limiter: %w", ctx.Err()))
	}
	if err := errors.Join(errs...); err != nil && !errors.Is(err, models.ErrUnavailable) {
		return err
	}
	return nil
}
