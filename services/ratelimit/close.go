package ratelimit

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"gatehouse/models"
)

// goBackground runs a task that Close waits for. It reports false if the limiter is closed.
func (l *Limiter) goBackground(task func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.tasks.Go(task)
	return true
}

// Close returns to Redis what is left of blocks, and waits for tasks in the background. It stops
// when ctx ends. A block that could not be returned counts until a window after its end. Call Close
// when no more requests come, and before the redis.Client is closed. The error is that of ctx, or a
// Redis that answers wrongly; without Redis there is nothing to return, and no error.
func (l *Limiter) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	err := l.giveBack(ctx)
	err = errors.Join(err, l.giveLeftovers(ctx, l.outbox.takeLeftovers(true)))
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

// giveBack returns the blocks, some at a time. It stops at the first error: if Redis is away,
// each further call would only cost its Timeout.
func (l *Limiter) giveBack(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(flushCalls)
	for key, s := range l.blocks.drain() {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := l.requestBlock(ctx, key, s.policy, 0, 0, 0, s.returned).err; err != nil {
				return fmt.Errorf("give back %s: %w", s.policy.Name, err)
			}
			return nil
		})
	}
	return group.Wait() //nolint:wrapcheck // it is ours
}
