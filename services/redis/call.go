package redis

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
)

type budgetKey struct{}

// budget is a context with the time that the calls of one request have spent in Redis together.
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

// WithBudget makes all Redis calls under the returned context share one Timeout: after one
// that timed out, the others return ErrNotSent at once. If ctx has a budget already, a new one
// begins.
func WithBudget(ctx context.Context) context.Context {
	return &budget{Context: ctx}
}

// EnsureBudget returns ctx if it has a budget, and else WithBudget(ctx).
func EnsureBudget(ctx context.Context) context.Context { return WithSpentBudget(ctx, 0) }

// WithSpentBudget is EnsureBudget, where a new budget has that much spent already.
func WithSpentBudget(ctx context.Context, spent time.Duration) context.Context {
	if _, has := ctx.Value(budgetKey{}).(*budget); has {
		return ctx
	}
	started := &budget{Context: ctx}
	started.spent.Store(int64(spent))
	return started
}

// Spend takes what a request waited for the call of another one off its budget, if ctx has one.
func Spend(ctx context.Context, waited time.Duration) {
	if shared, has := ctx.Value(budgetKey{}).(*budget); has {
		shared.spent.Add(int64(waited))
	}
}

// Left is how long the calls of a request may still take; limited is false if ctx has no budget.
func (r *Client) Left(ctx context.Context) (left time.Duration, limited bool) {
	spending, limited := ctx.Value(budgetKey{}).(*budget)
	if !limited {
		return 0, false
	}
	return max(0, r.opt.Timeout-time.Duration(spending.spent.Load())), true
}

// ErrNotSent is the error of a call that cannot have reached Redis. It is a
// models.ErrUnavailable.
var ErrNotSent = fmt.Errorf("redis: %w", models.ErrUnavailable)

// Do runs fn, which sends one command or script, and returns its reply. A nil reply is
// rueidis.Nil. Every other error is models.ErrUnavailable: Redis is away or disabled, Timeout
// or the budget has passed, ctx has ended, or Redis refused the command. Unless it is
// ErrNotSent, the command may have been executed all the same, so it must be safe to repeat.
//
// In a Cluster Do does not know which node fn sends the command to: DoAt does.
func (r *Client) Do(ctx context.Context, fn func(context.Context, rueidis.Client) rueidis.RedisResult) (rueidis.RedisMessage, error) {
	return r.DoAt(ctx, "", fn)
}

// DoAt is Do for a command on key, or on keys with the same hash tag: while the node on which
// they live is away, it returns ErrNotSent at once.
func (r *Client) DoAt(ctx context.Context, key string, fn func(context.Context, rueidis.Client) rueidis.RedisResult) (rueidis.RedisMessage, error) {
	return doAt(ctx, r, r.shared.Load(), r.nodes.Load().of(key), func(ctx context.Context, rdb rueidis.Client) (rueidis.RedisMessage, error) {
		return fn(ctx, rdb).ToMessage()
	})
}

// Exec runs a Lua script. All its keys have the same hash tag. Errors are those of Do.
func (r *Client) Exec(ctx context.Context, script *rueidis.Lua, keys, args []string) (rueidis.RedisMessage, error) {
	return r.DoAt(ctx, keys[0], func(ctx context.Context, rdb rueidis.Client) rueidis.RedisResult {
		return script.Exec(ctx, rdb, keys, args)
	})
}

// call sends one command and returns its reply. Its error is rueidis's, or that of ctx.
type call[T any] func(context.Context, rueidis.Client) (T, error)

// doAt runs fn on rdb, which is nil while it is not connected yet, for a key on node n.
func doAt[T any](ctx context.Context, r *Client, rdb *rueidis.Client, n *node, fn call[T]) (none T, _ error) {
	if rdb == nil || !r.sendsTo(ctx, n) {
		r.calls.skipped.Inc()
		return none, ErrNotSent
	}
	allowed := r.opt.Timeout
	spending, limited := ctx.Value(budgetKey{}).(*budget)
	if limited {
		allowed -= time.Duration(spending.spent.Load())
		if allowed <= 0 {
			r.calls.skipped.Inc()
			return none, fmt.Errorf("the request's budget is spent: %w", ErrNotSent)
		}
	}
	start := time.Now()
	reply, err := send(ctx, r, rdb, allowed, fn)
	if limited {
		spending.spent.Add(int64(time.Since(start)))
	}
	return reply, r.classify(ctx, n, err, allowed)
}

// send runs fn within allowed. While the connection is up, rueidis keeps to ctx by itself;
// else it may dial, and the call is left behind when its time has passed.
func send[T any](ctx context.Context, r *Client, rdb *rueidis.Client, allowed time.Duration, fn call[T]) (none T, _ error) {
	if rdb != r.shared.Load() {
		return race(ctx, r, *rdb, allowed, fn)
	}
	lost := r.conn.lost.Load()
	if !r.conn.up() {
		reply, err := race(ctx, r, *rdb, allowed, fn)
		if answered(err) && (*rdb).Mode() != rueidis.ClientModeCluster {
			r.conn.succeeded(lost)
		}
		return reply, err
	}
	ctx, cancel := context.WithTimeout(ctx, allowed)
	defer cancel()
	if err := r.acquireSlot(ctx); err != nil {
		return none, err
	}
	defer r.releaseSlot()
	return fn(ctx, *rdb)
}

// answered reports whether Redis replied, be it with an error.
func answered(err error) bool {
	_, replied := rueidis.IsRedisErr(err)
	return err == nil || replied || rueidis.IsRedisNil(err)
}

// yieldToCalls lets the calls that are about to be sent join the next write, when there are
// many. A delay (rueidis's MaxFlushDelay) does it too, but its 20 microseconds are a
// millisecond where nothing else runs.
func (r *Client) yieldToCalls() {
	if len(r.inFlight) >= yieldThreshold {
		runtime.Gosched()
	}
}

var errInFlight = errors.New("too many calls in flight")

// acquireSlot takes one of the slots for calls in flight, unless ctx ends first.
func (r *Client) acquireSlot(ctx context.Context) error {
	select {
	case r.inFlight <- struct{}{}:
		return nil
	default:
	}
	select {
	case r.inFlight <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errInFlight, ctx.Err())
	}
}

func (r *Client) releaseSlot() { <-r.inFlight }

// race runs fn in the background and leaves it behind when allowed has passed.
func race[T any](ctx context.Context, r *Client, rdb rueidis.Client, allowed time.Duration, fn call[T]) (none T, _ error) {
	ctx, cancel := context.WithTimeout(ctx, allowed)
	defer cancel()
	if err := r.acquireSlot(ctx); err != nil {
		return none, err
	}
	return leaveBehind(ctx, func(ctx context.Context) (T, error) {
		defer r.releaseSlot()
		return fn(ctx, rdb)
	})
}

// leaveBehind runs fn in the background and returns without it when ctx ends.
func leaveBehind[T any](ctx context.Context, fn func(context.Context) (T, error)) (none T, _ error) {
	type outcome struct {
		reply T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		reply, err := fn(ctx)
		done <- outcome{reply, err}
	}()
	select {
	case got := <-done:
		return got.reply, got.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// classify turns rueidis's error into that of Do, and records what it says about the node.
func (r *Client) classify(ctx context.Context, n *node, err error, allowed time.Duration) error {
	redisErr, replied := rueidis.IsRedisErr(err)
	switch {
	case err == nil || rueidis.IsRedisNil(err):
		r.calls.ok.Inc()
		n.succeeded()
		return err
	case errors.Is(err, ErrNotSent):
		r.calls.skipped.Inc()
		return err
	case ctx.Err() != nil: // the caller left: that says nothing about Redis
		return fmt.Errorf("redis: %w: %w", models.ErrUnavailable, context.Cause(ctx))
	case replied && !isUnavailable(redisErr.Error()):
		r.calls.failed.Inc()
		n.succeeded()
		r.logRefusal(redisErr)
	case errors.Is(err, context.DeadlineExceeded):
		r.calls.timeout.Inc()
		if allowed >= r.opt.Timeout/2 { // the rest of a budget proves nothing
			n.failed(true)
		}
	case replied && isElsewhere(redisErr.Error()):
		r.calls.failed.Inc()
		r.refreshSlots()
	default:
		r.calls.failed.Inc()
		n.failed(false)
	}
	return fmt.Errorf("redis: %w: %w", models.ErrUnavailable, err)
}

// refusalInterval is the least time between two log lines about refused commands: every
// request may run into one.
const refusalInterval = 10 * time.Second

func (r *Client) logRefusal(err error) {
	now, last := time.Now().UnixNano(), r.refusalLogged.Load()
	if now-last >= int64(refusalInterval) && r.refusalLogged.CompareAndSwap(last, now) {
		r.log.Error("Redis refused a command", "error", err)
	}
}
