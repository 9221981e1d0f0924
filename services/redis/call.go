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

// budget is what the calls of one request have spent in Redis together.
type budget struct{ spent atomic.Int64 }

// WithBudget makes all Redis calls under the returned context share one
// Timeout: after one that timed out, the rest answer ErrUnavailable at once. A
// second call starts a new budget.
func WithBudget(ctx context.Context) context.Context {
	return context.WithValue(ctx, budgetKey{}, new(budget))
}

// EnsureBudget is ctx with the budget that it has, or else a new one.
func EnsureBudget(ctx context.Context) context.Context { return WithSpentBudget(ctx, 0) }

// WithSpentBudget is ctx with the budget that it has, or else one of which so much is
// spent already.
func WithSpentBudget(ctx context.Context, spent time.Duration) context.Context {
	if _, has := ctx.Value(budgetKey{}).(*budget); has {
		return ctx
	}
	started := new(budget)
	started.spent.Store(int64(spent))
	return context.WithValue(ctx, budgetKey{}, started)
}

// ErrNotSent is the end of a call that cannot have reached Redis.
var ErrNotSent = fmt.Errorf("redis: %w", models.ErrUnavailable)

// Do runs fn, which sends one command or script, through the door. A nil reply
// is rueidis.Nil. Everything that means "not now" is models.ErrUnavailable; the
// command may have been executed all the same, so it must be safe to repeat.
// Where fn sends it in a Cluster is not known here: DoAt is told.
func (r *Client) Do(ctx context.Context, fn func(context.Context, rueidis.Client) rueidis.RedisResult) (rueidis.RedisMessage, error) {
	return r.DoAt(ctx, "", fn)
}

// DoAt is Do for a command whose keys live where key does: if that is away, it answers
// at once.
func (r *Client) DoAt(ctx context.Context, key string, fn func(context.Context, rueidis.Client) rueidis.RedisResult) (rueidis.RedisMessage, error) {
	return doAt(ctx, r, r.client.Load(), r.nodes.Load().of(key), messageOf(fn))
}

func messageOf(fn func(context.Context, rueidis.Client) rueidis.RedisResult) call[rueidis.RedisMessage] {
	return func(ctx context.Context, client rueidis.Client) (rueidis.RedisMessage, error) {
		return fn(ctx, client).ToMessage()
	}
}

// call asks Redis once. Its error is rueidis's, or that of ctx.
type call[T any] func(context.Context, rueidis.Client) (T, error)

// doAt is DoAt on connections of their own; a nil client is one that is not connected
// yet.
func doAt[T any](ctx context.Context, r *Client, client *rueidis.Client, n *node, fn call[T]) (none T, _ error) {
	if r.opt.Disabled || client == nil || (n.shut.Load() && recovering(ctx) != n) { // as sends
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
	reply, err := send(ctx, r, client, allowed, fn)
	if limited {
		spending.spent.Add(int64(time.Since(start)))
	}
	return reply, r.judge(ctx, n, err, allowed)
}

// Exec runs a script through the door. All keys share one hash tag.
func (r *Client) Exec(ctx context.Context, script *rueidis.Lua, keys, args []string) (rueidis.RedisMessage, error) {
	return r.DoAt(ctx, keys[0], func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return script.Exec(ctx, c, keys, args)
	})
}

var errInFlight = errors.New("too many calls in flight")

// send runs fn within allowed. While the connection is up, rueidis keeps to ctx by
// itself; else the call may have to be left behind while it dials.
func send[T any](ctx context.Context, r *Client, client *rueidis.Client, allowed time.Duration, fn call[T]) (none T, _ error) {
	if client != r.client.Load() {
		return race(ctx, r, *client, allowed, fn)
	}
	lost := r.live.lost.Load()
	if !r.live.now() {
		reply, err := race(ctx, r, *client, allowed, fn)
		if answered(err) && (*client).Mode() != rueidis.ClientModeCluster {
			r.live.served(lost)
		}
		return reply, err
	}
	ctx, cancel := context.WithTimeout(ctx, allowed)
	defer cancel()
	if err := r.place(ctx); err != nil {
		return none, err
	}
	defer func() { <-r.inFlight }()
	return fn(ctx, *client)
}

// answered reports whether Redis replied, be it with an error.
func answered(err error) bool {
	_, replied := rueidis.IsRedisErr(err)
	return err == nil || replied || rueidis.IsRedisNil(err)
}

// letOthersWrite lets the calls that are about to be sent join the next write, when
// there are many. A delay (rueidis's MaxFlushDelay) does it too, but its 20
// microseconds are a millisecond where nothing else runs.
func (r *Client) letOthersWrite() {
	if len(r.inFlight) >= crowd {
		runtime.Gosched()
	}
}

// place takes a place among the calls in flight, in time.
func (r *Client) place(ctx context.Context) error {
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

// race runs fn against the deadline, and leaves it behind when that passes.
func race[T any](ctx context.Context, r *Client, client rueidis.Client, allowed time.Duration, fn call[T]) (none T, _ error) {
	ctx, cancel := context.WithTimeout(ctx, allowed)
	defer cancel()
	if err := r.place(ctx); err != nil {
		return none, err
	}
	return leave(ctx, func(ctx context.Context) (T, error) {
		defer func() { <-r.inFlight }()
		return fn(ctx, client)
	})
}

// leave runs fn and leaves it behind when ctx ends.
func leave[T any](ctx context.Context, fn func(context.Context) (T, error)) (none T, _ error) {
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

// judge turns an error of a call into its meaning and tells the node's health.
func (r *Client) judge(ctx context.Context, n *node, err error, allowed time.Duration) error {
	redisErr, replied := rueidis.IsRedisErr(err)
	switch {
	case err == nil || rueidis.IsRedisNil(err):
		r.calls.ok.Inc()
		n.succeeded()
		return err
	case errors.Is(err, ErrNotSent): // nor was Redis asked
		r.calls.skipped.Inc()
		return err
	case ctx.Err() != nil: // the caller went away: says nothing about Redis
		return fmt.Errorf("redis: %w: %w", models.ErrUnavailable, context.Cause(ctx))
	case replied && !notNow(redisErr.Error()):
		r.calls.failed.Inc()
		n.succeeded()
		r.tellRefusal(redisErr)
	case errors.Is(err, context.DeadlineExceeded):
		r.calls.timeout.Inc()
		if allowed >= r.opt.Timeout/2 { // a rest of a budget proves nothing
			n.failed(true)
		}
	case replied && isElsewhere(redisErr.Error()):
		r.calls.failed.Inc()
		r.lookForSlots()
	default:
		r.calls.failed.Inc()
		n.failed(false)
	}
	return fmt.Errorf("redis: %w: %w", models.ErrUnavailable, err)
}

// refusalsTold is how far apart the lines about refused commands are: there may be one
// in every request.
const refusalsTold = 10 * time.Second

func (r *Client) tellRefusal(err error) {
	now, told := time.Now().UnixNano(), r.refusalTold.Load()
	if now-told >= int64(refusalsTold) && r.refusalTold.CompareAndSwap(told, now) {
		r.log.Error("Redis refused a command", "error", err)
	}
}
