package services

import (
	"context"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/redis/rueidis"
)

// OnRecover registers fn to run each time Redis answers again, before Available
// turns true: what has to reach Redis before anything else goes here. Redis
// calls made with fn's context pass although the breaker is still open; that
// context ends after ten Timeouts.
func (r *Redis) OnRecover(fn func(context.Context)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onRecover = append(r.onRecover, fn)
}

type recoveryKey struct{}

// recovering reports whether ctx is one of OnRecover's.
func recovering(ctx context.Context) bool {
	_, is := ctx.Value(recoveryKey{}).(bool)
	return is
}

// probeLoop connects and then asks Redis every 250 ms whether it serves.
func (r *Redis) probeLoop(ctx context.Context) {
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	if r.probe(ctx) != nil && ctx.Err() == nil {
		r.logDown()
	}
	r.silent.Store(ctx.Err() != nil)
	for {
		if err := r.probe(ctx); err != nil && r.breakerClosed.Load() && ctx.Err() == nil {
			r.breaker.Open()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (r *Redis) probe(ctx context.Context) error {
	client := r.client.Load()
	if client == nil {
		connected, err := rueidis.NewClient(r.main)
		if connected == nil {
			return err
		}
		r.client.Store(&connected)
		client = &connected
	}
	if _, err := send(ctx, r, client, r.opt.Timeout, r.whetherItServes); err != nil {
		return err
	}
	if !r.breakerClosed.Load() {
		r.lane.distrust()
	}
	if (*client).Mode() == rueidis.ClientModeStandalone {
		r.spawn(func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, r.opt.Timeout)
			defer cancel()
			r.lane.keep(ctx, r.whetherItServes)
		})
	}
	if r.breakerClosed.Load() {
		return nil
	}
	r.recover(ctx)
	r.breaker.Close()
	select {
	case <-r.ready:
	default:
		close(r.ready)
		r.spawn(r.warnAboutEviction)
	}
	return nil
}

// whetherItServes is a write, so that a full or read-only server counts as away.
func (r *Redis) whetherItServes(ctx context.Context, c rueidis.Client) (rueidis.RedisMessage, error) {
	return c.Do(ctx, c.B().Set().Key(r.Key("probe")).Value("1").Px(time.Minute).Build()).ToMessage()
}

func (r *Redis) recover(ctx context.Context) {
	r.mu.Lock()
	hooks := r.onRecover
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, recoveryKey{}, true), 10*r.opt.Timeout)
	defer cancel()
	for _, hook := range hooks {
		hook(ctx)
	}
}

// stateChanged is called after each change, by who made it, and so perhaps not in
// the order of the changes.
func (r *Redis) stateChanged(e circuitbreaker.StateChangedEvent) {
	r.mu.Lock()
	r.breakerClosed.Store(r.breaker.IsClosed())
	r.mu.Unlock()
	switch {
	case r.silent.Load() || e.OldState == e.NewState:
	case e.NewState == circuitbreaker.ClosedState:
		r.log.Info("Redis is available", "addresses", r.opt.Client.InitAddress)
	default:
		r.logDown()
	}
}

func (r *Redis) logDown() {
	r.log.Warn("Redis is not available: working without it", "addresses", r.opt.Client.InitAddress)
}

// warnAboutEviction tells at start when the server may evict locks.
func (r *Redis) warnAboutEviction(ctx context.Context) {
	config := func(name string) string {
		msg, err := r.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
			return c.Do(ctx, c.B().ConfigGet().Parameter(name).Build())
		})
		if err != nil {
			return ""
		}
		values, _ := msg.AsStrMap()
		return values[name]
	}
	if r.opt.Embedded {
		return
	}
	if policy := config("maxmemory-policy"); policy != "" && policy != "noeviction" && config("maxmemory") != "0" {
		r.log.Warn("Redis may evict locks before they end: set maxmemory-policy to noeviction", "maxmemory-policy", policy)
	}
}
