package ratelimit

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"gatehouse/models"
)

// goBackground runs task until Close waits for it; false if it is closed.
func (l *Limiter) goBackground(task func()) bool {
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
func (l *Limiter) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	err := l.giveBack(ctx)
	if errors.Is(err, models.ErrUnavailable) && ctx.Err() == nil {
		err = nil // without Redis nothing can be given back
	}
	done := make(chan struct{})
	go func() {
		l.tasks.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return errors.Join(err, fmt.Errorf("close rate limiter: %w", ctx.Err()))
	}
	return err
}

// giveBack returns the blocks, some at a time. It stops at the first error: when Redis
// is away each further one would only cost its deadline.
func (l *Limiter) giveBack(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(reportingCalls)
	for key, s := range l.leases.takeAll() {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := l.askForBlock(ctx, key, s.policy, 0, 0, 0, s.owed).err; err != nil {
				return fmt.Errorf("give back %s: %w", s.policy.Name, err)
			}
			return nil
		})
	}
	return group.Wait() //nolint:wrapcheck // it is ours
}
