package services

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// Subscribe calls fn for each message on the prefixed channel until Close,
// subscribing again by itself. Messages sent while Redis was away are lost: use
// them as hints only. Disabled and embedded Redis carry none: there is no other
// instance to hear from.
func (r *Redis) Subscribe(channel string, fn func(message string)) {
	if r.opt.Disabled || r.opt.Embedded {
		return
	}
	r.spawn(func(ctx context.Context) {
		for ctx.Err() == nil {
			if client := r.client.Load(); client != nil {
				c := *client
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

// Publish sends a hint to every instance's Subscribe.
func (r *Redis) Publish(ctx context.Context, channel, message string) error {
	_, err := r.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Publish().Channel(r.Key(channel)).Message(message).Build())
	})
	return err
}
