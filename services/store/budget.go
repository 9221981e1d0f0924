package store

import (
	"context"
	"sync/atomic"
	"time"
)

type budgetKey struct{}

// budget is a context with what the calls of one request have spent in the database together:
// their time in it, and that in which they waited for it. Other work costs nothing.
type budget struct {
	context.Context //nolint:containedctx // it is one
	spent           atomic.Int64
}

func (b *budget) Value(key any) any {
	if key == (budgetKey{}) {
		return b
	}
	return b.Context.Value(key)
}

// budgetOf is the budget of a context; nil if it has none.
func budgetOf(ctx context.Context) *budget {
	b, _ := ctx.Value(budgetKey{}).(*budget)
	return b
}

// left is what is left of a timeout, all of it without a budget.
func (b *budget) left(timeout time.Duration) time.Duration {
	if b == nil {
		return timeout
	}
	return max(0, timeout-time.Duration(b.spent.Load()))
}

func (b *budget) spend(d time.Duration) {
	if b != nil {
		b.spent.Add(int64(d))
	}
}

// WithBudget makes all calls under the returned context share one Options.Timeout:
// after those that took it up, the rest answer models.ErrUnavailable at once. A
// second call starts a new budget.
func (s *Store) WithBudget(ctx context.Context) context.Context {
	return &budget{Context: ctx}
}

// WithinBudget is ctx, bounded by what is left of its budget, for a caller that waits for
// a query which it shares with others. The time until done is spent; calls under
// the returned context spend nothing by themselves. Without a budget it is ctx.
func (s *Store) WithinBudget(ctx context.Context) (_ context.Context, done context.CancelFunc) {
	if budgetOf(ctx) == nil {
		return ctx, func() {}
	}
	ctx, _, done = within(ctx, s.timeout)
	return ctx, done
}

// within bounds a call by its timeout or, if the request has a budget, by what is left
// of that, and says how much that is. done must be called.
func within(ctx context.Context, timeout time.Duration) (_ context.Context, left time.Duration, done context.CancelFunc) {
	b := budgetOf(ctx)
	if b == nil {
		ctx, done = context.WithTimeout(ctx, timeout)
		return ctx, timeout, done
	}
	began := time.Now()
	left = b.left(timeout)
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, budgetKey{}, (*budget)(nil)), left)
	return ctx, left, func() {
		cancel()
		b.spend(time.Since(began))
	}
}
