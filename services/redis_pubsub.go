package services

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// Subscribe calls fn for each message on the prefixed channel until Close,
// subscribing again by itself. Messages sent while Redis was away are lost: use
// them as hints only. Disabled Redis carries none.
func (r *Redis) Subscribe(channel string, fn func(message string)) {
	if r.opt.Disabled {
		return
	}
	r.spawn(func(ctx context.Context) {
		client, done := r.subscriber()
		defer done()
		for ctx.Err() == nil {
			if c := client(); c != nil {
				_ = c.Receive(ctx, c.B().Subscribe().Channel(r.Key(channel)).Build(),
					func(msg rueidis.PubSubMessage) { fn(msg.Message) }) // whatever ended it, we subscribe again
			}
			select {
			case <-time.After(probeInterval):
			case <-ctx.Done():
			}
		}
	})
}

// subscriber is the client to subscribe with: the shared one, but the embedded
// server allows no commands on a subscribed connection, so there it is an own one.
func (r *Redis) subscriber() (client func() rueidis.Client, done func()) {
	if r.opt.Embedded {
		if own, err := rueidis.NewClient(r.opt.Client); err == nil {
			return func() rueidis.Client { return own }, own.Close
		}
	}
	return func() rueidis.Client {
		if shared := r.client.Load(); shared != nil {
			return *shared
		}
		return nil
	}, func() {}
}

// Publish sends a hint to every instance's Subscribe.
func (r *Redis) Publish(ctx context.Context, channel, message string) error {
	_, err := r.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Publish().Channel(r.Key(channel)).Message(message).Build())
	})
	return err
}
