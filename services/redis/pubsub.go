package redis

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

const (
	subscribePause    = 250 * time.Millisecond // before subscribing again
	subscribePauseMax = 30 * time.Second       // where Redis refuses to
)

// Subscribe calls fn for each message on the prefixed channel until Close,
// subscribing again by itself. Messages sent while Redis was away are lost: use
// them as hints only. Disabled Redis carries none, nor does one that does not let its
// user SUBSCRIBE.
func (r *Client) Subscribe(channel string, fn func(message string)) {
	r.Go(func(ctx context.Context) { r.receive(ctx, channel, fn, r.shared, func() {}, func() {}) })
}

// Listen is Subscribe until ctx ends, on a connection of its own. It calls up each
// time the subscription is confirmed, and down when it is lost after that.
func (r *Client) Listen(ctx context.Context, channel string, fn func(message string), up, down func()) {
	r.Go(func(life context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		r.receive(ctx, channel, fn, r.dedicated, up, down)
	})
}

// receiver is what one subscription is made on.
type receiver interface {
	B() rueidis.Builder
	Receive(ctx context.Context, subscribe rueidis.Completed, fn func(msg rueidis.PubSubMessage)) error
}

// receive subscribes on what lease answers, again and again until ctx ends. It calls up
// when that is confirmed, and down when it has ended after that.
func (r *Client) receive(ctx context.Context, channel string, fn func(message string), lease func() (c receiver, done func()), up, down func()) {
	if r.opt.Disabled {
		return
	}
	var confirmed atomic.Bool
	ctx = rueidis.WithOnSubscriptionHook(ctx, func(s rueidis.PubSubSubscription) {
		if s.Kind == "subscribe" && confirmed.CompareAndSwap(false, true) {
			r.hears()
			up()
		}
	})
	for pause := subscribePause; ctx.Err() == nil; {
		if c, done := lease(); c != nil {
			err := c.Receive(ctx, c.B().Subscribe().Channel(r.Key(channel)).Build(),
				func(msg rueidis.PubSubMessage) { fn(msg.Message) })
			done()
			_, refused := rueidis.IsRedisErr(err)
			switch had := confirmed.Swap(false); {
			case had:
				down()
				pause = subscribePause
			case refused && ctx.Err() == nil:
				r.hearsNothing(err)
				pause = min(2*pause, subscribePauseMax)
			default:
				pause = subscribePause
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// hearsNothing tells once that Redis refuses subscriptions.
func (r *Client) hearsNothing(err error) {
	why := causeOf(err, r.opt.Timeout, r.opt.Timeout)
	if why.state == NodeNotNow {
		return
	}
	reason := "it does not let us SUBSCRIBE, so locks given back and sessions ended elsewhere are noticed later: " + why.reason
	if r.deaf.Swap(&reason) == nil {
		r.log.Warn("Redis is used without SUBSCRIBE: trying again every 30 s", "state", why.state, "reason", reason, "error", err)
	}
}

// hears tells that subscriptions are possible again.
func (r *Client) hears() {
	if r.deaf.Load() != nil && r.deaf.Swap(nil) != nil {
		r.log.Info("Redis lets us SUBSCRIBE again")
	}
}

func (r *Client) shared() (receiver, func()) {
	if r.opt.Embedded {
		return r.dedicated()
	}
	if client := r.client.Load(); client != nil {
		return r.onOneThatServes(*client), func() {}
	}
	return nil, nil
}

// dedicated is a connection for one subscription. The embedded server allows no
// commands on it, not even the end of the subscription: it is closed instead.
func (r *Client) dedicated() (receiver, func()) {
	if r.opt.Embedded {
		if own, err := rueidis.NewClient(r.opt.Client); err == nil {
			return own, own.Close
		}
		return nil, nil
	}
	if client := r.client.Load(); client != nil {
		return r.onOneThatServes(*client).Dedicate()
	}
	return nil, nil
}

// onOneThatServes is a client for what may go to any node of a Cluster.
func (r *Client) onOneThatServes(client rueidis.Client) rueidis.Client {
	n := r.nodes.Load().of("")
	n.mu.Lock()
	name := n.name
	n.mu.Unlock()
	return connectionOf(client, name)
}

// Publish sends a hint to every instance's Subscribe.
func (r *Client) Publish(ctx context.Context, channel, message string) error {
	_, err := r.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		c = r.onOneThatServes(c)
		return c.Do(ctx, c.B().Publish().Channel(r.Key(channel)).Message(message).Build())
	})
	return err
}

// ErrSubscribersUnknown says that this server will not tell how many listen to a channel: the
// user may not ask, or in a Cluster each node knows its own only.
var ErrSubscribersUnknown = errors.New("subscribers are not known")

// Subscribers counts the connections that listen to a channel. The answer says nothing about
// the server's health, so a permission that is missing here does not make Redis count as away.
func (r *Client) Subscribers(ctx context.Context, channel string) (int64, error) {
	client := r.client.Load()
	if client == nil {
		return 0, ErrNotSent
	}
	if (*client).Mode() == rueidis.ClientModeCluster {
		return 0, ErrSubscribersUnknown
	}
	found, err := race(ctx, r, *client, r.opt.Timeout, func(ctx context.Context, c rueidis.Client) (map[string]int64, error) {
		return c.Do(ctx, c.B().PubsubNumsub().Channel(channel).Build()).AsIntMap()
	})
	var reply *rueidis.RedisError
	if errors.As(err, &reply) && !isTransient(reply.Error()) {
		return 0, fmt.Errorf("%w: %w", ErrSubscribersUnknown, err)
	}
	return found[channel], err
}
