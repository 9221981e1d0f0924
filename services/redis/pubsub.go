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
	subscribePause    = 250 * time.Millisecond // before the next try to subscribe
	subscribePauseMax = 30 * time.Second       // the same where Redis refuses to
)

// Subscribe calls fn for each message on the channel with the KeyPrefix, until Close. When the
// connection is lost it subscribes again; messages sent meanwhile are lost, so use them as
// hints only. There are none while Redis is disabled, or does not permit its user SUBSCRIBE.
func (r *Client) Subscribe(channel string, fn func(message string)) {
	r.Go(func(ctx context.Context) { r.receive(ctx, channel, fn, r.sharedConn, func() {}, func() {}) })
}

// Listen is Subscribe until ctx ends, on a connection of its own. It calls up each time the
// subscription is confirmed, and down when it is lost after that.
func (r *Client) Listen(ctx context.Context, channel string, fn func(message string), up, down func()) {
	r.Go(func(life context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		r.receive(ctx, channel, fn, r.dedicatedConn, up, down)
	})
}

// receiver is what a subscription needs of a client.
type receiver interface {
	B() rueidis.Builder
	Receive(ctx context.Context, subscribe rueidis.Completed, fn func(msg rueidis.PubSubMessage)) error
}

// receive subscribes on what open returns, again and again until ctx ends. It calls up when
// the subscription is confirmed, and down when it has ended after that. open returns nil while
// there is no connection.
func (r *Client) receive(ctx context.Context, channel string, fn func(message string), open func() (c receiver, done func()), up, down func()) {
	if r.opt.Disabled {
		return
	}
	var confirmed atomic.Bool
	ctx = rueidis.WithOnSubscriptionHook(ctx, func(s rueidis.PubSubSubscription) {
		if s.Kind == "subscribe" && confirmed.CompareAndSwap(false, true) {
			r.subscriptionConfirmed()
			up()
		}
	})
	for pause := subscribePause; ctx.Err() == nil; {
		if c, done := open(); c != nil {
			err := c.Receive(ctx, c.B().Subscribe().Channel(r.Key(channel)).Build(),
				func(msg rueidis.PubSubMessage) { fn(msg.Message) })
			done()
			_, refused := rueidis.IsRedisErr(err)
			switch had := confirmed.Swap(false); {
			case had:
				down()
				pause = subscribePause
			case refused && ctx.Err() == nil:
				r.subscriptionRefused(err)
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

// subscriptionRefused logs once that Redis refuses subscriptions, unless it refuses everything
// for the moment.
func (r *Client) subscriptionRefused(err error) {
	why := causeOf(err, r.opt.Timeout, r.opt.Timeout)
	if why.state == NodeNotNow {
		return
	}
	reason := "it does not let us SUBSCRIBE, so locks given back and sessions ended elsewhere are noticed later: " + why.reason
	if r.noSubscription.Swap(&reason) == nil {
		r.log.Warn("Redis is used without SUBSCRIBE: trying again every 30 s", "state", why.state, "reason", reason, "error", err)
	}
}

func (r *Client) subscriptionConfirmed() {
	if r.noSubscription.Load() != nil && r.noSubscription.Swap(nil) != nil {
		r.log.Info("Redis lets us SUBSCRIBE again")
	}
}

func (r *Client) sharedConn() (receiver, func()) {
	if r.opt.Embedded {
		return r.dedicatedConn()
	}
	if rdb := r.shared.Load(); rdb != nil {
		return r.anyNode(*rdb), func() {}
	}
	return nil, nil
}

// dedicatedConn is a connection for one subscription. The embedded server accepts no command
// on it, not even UNSUBSCRIBE: done closes it instead.
func (r *Client) dedicatedConn() (_ receiver, done func()) {
	if r.opt.Embedded {
		if own, err := rueidis.NewClient(r.opt.Client); err == nil {
			return own, own.Close
		}
		return nil, nil
	}
	if rdb := r.shared.Load(); rdb != nil {
		return r.anyNode(*rdb).Dedicate()
	}
	return nil, nil
}

// anyNode returns connections to a node that serves, for what any node of a Cluster can do.
func (r *Client) anyNode(rdb rueidis.Client) rueidis.Client {
	n := r.nodes.Load().of("")
	n.mu.Lock()
	name := n.name
	n.mu.Unlock()
	return connectionOf(rdb, name)
}

// Publish sends a message to every Subscribe and Listen of the channel, here and in other
// programs with the same KeyPrefix. Errors are those of Do.
func (r *Client) Publish(ctx context.Context, channel, message string) error {
	_, err := r.Do(ctx, func(ctx context.Context, rdb rueidis.Client) rueidis.RedisResult {
		rdb = r.anyNode(rdb)
		return rdb.Do(ctx, rdb.B().Publish().Channel(r.Key(channel)).Message(message).Build())
	})
	return err
}

// ErrSubscribersUnknown says that Redis does not tell how many connections listen to a channel:
// its user may not ask, or in a Cluster each node knows only its own.
var ErrSubscribersUnknown = errors.New("subscribers are not known")

// Subscribers counts the connections that listen to the prefixed channel. It returns ErrSubscribersUnknown, ErrNotSent before the client is connected, or
// the error of the one call. A permission that is missing here does not make Redis count as
// away.
func (r *Client) Subscribers(ctx context.Context, channel string) (int64, error) {
	rdb, channel := r.shared.Load(), r.Key(channel)
	if rdb == nil {
		return 0, ErrNotSent
	}
	if (*rdb).Mode() == rueidis.ClientModeCluster {
		return 0, ErrSubscribersUnknown
	}
	found, err := race(ctx, r, *rdb, r.opt.Timeout, func(ctx context.Context, c rueidis.Client) (map[string]int64, error) {
		return c.Do(ctx, c.B().PubsubNumsub().Channel(channel).Build()).AsIntMap()
	})
	var reply *rueidis.RedisError
	if errors.As(err, &reply) && !isTransient(reply.Error()) {
		return 0, fmt.Errorf("%w: %w", ErrSubscribersUnknown, err)
	}
	return found[channel], err
}
