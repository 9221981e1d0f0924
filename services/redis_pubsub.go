package services

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// Subscribe calls fn for each message on the prefixed channel until Close,
// subscribing again by itself. Messages sent while Redis was away are lost: use
// them as hints only. Disabled Redis carries none.
func (r *Redis) Subscribe(channel string, fn func(message string)) {
	r.spawn(func(ctx context.Context) { r.receive(ctx, channel, fn, r.shared, func() {}) })
}

// Listen is Subscribe until ctx ends, on a connection of its own. It calls up each
// time the subscription is confirmed, and down when it is lost after that.
func (r *Redis) Listen(ctx context.Context, channel string, fn func(message string), up, down func()) {
	r.spawn(func(life context.Context) {
		var confirmed atomic.Bool
		ctx, cancel := context.WithCancel(rueidis.WithOnSubscriptionHook(ctx, func(s rueidis.PubSubSubscription) {
			if s.Kind == "subscribe" && confirmed.CompareAndSwap(false, true) {
				up()
			}
		}))
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		r.receive(ctx, channel, fn, r.dedicated, func() {
			if confirmed.Swap(false) {
				down()
			}
		})
	})
}

// receiver is what one subscription is made on.
type receiver interface {
	B() rueidis.Builder
	Receive(ctx context.Context, subscribe rueidis.Completed, fn func(msg rueidis.PubSubMessage)) error
}

// receive subscribes on what lease answers, again and again until ctx ends, and calls
// ended after each time.
func (r *Redis) receive(ctx context.Context, channel string, fn func(message string), lease func() (c receiver, done func()), ended func()) {
	if r.opt.Disabled {
		return
	}
	for ctx.Err() == nil {
		if c, done := lease(); c != nil {
			_ = c.Receive(ctx, c.B().Subscribe().Channel(r.Key(channel)).Build(),
				func(msg rueidis.PubSubMessage) { fn(msg.Message) }) // whatever ended it, we subscribe again
			done()
			ended()
		}
		select {
		case <-time.After(probeInterval):
		case <-ctx.Done():
		}
	}
}

func (r *Redis) shared() (receiver, func()) {
	if r.opt.Embedded {
		return r.dedicated()
	}
	if client := r.client.Load(); client != nil {
		return *client, func() {}
	}
	return nil, nil
}

// dedicated is a connection for one subscription. The embedded server allows no
// commands on it, not even the end of the subscription: it is closed instead.
func (r *Redis) dedicated() (receiver, func()) {
	if r.opt.Embedded {
		if own, err := rueidis.NewClient(r.opt.Client); err == nil {
			return own, own.Close
		}
		return nil, nil
	}
	if client := r.client.Load(); client != nil {
		return (*client).Dedicate()
	}
	return nil, nil
}

// Publish sends a hint to every instance's Subscribe.
func (r *Redis) Publish(ctx context.Context, channel, message string) error {
	_, err := r.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Publish().Channel(r.Key(channel)).Message(message).Build())
	})
	return err
}
