package services

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/redis/rueidis"
)

// peersGone is how many looks in a row find no other instance until none is expected. An
// instance whose connection was lost subscribes again within a few.
const peersGone = 10

// lockPeers knows whether other instances may have locks that this one does not know of. When
// the server has forgotten its locks, a newcomer would take them from holders there, so free
// locks wait for claims; an instance that is alone need not wait for any but its own.
type lockPeers struct {
	seen    bool
	missed  int         // looks in a row since
	refused bool        // the user of this instance may not look
	some    atomic.Bool // others are expected
}

// none reports whether no other instance is expected.
func (p *lockPeers) none() bool { return !p.some.Load() }

// look counts the instances that listen for the end of locks. In a Cluster a node knows only
// those that are connected to it, so others are expected there.
func (p *lockPeers) look(ctx context.Context, redis *Redis) {
	client := redis.client.Load()
	if client == nil || p.refused {
		return
	}
	if (*client).Mode() == rueidis.ClientModeCluster {
		p.some.Store(true)
		return
	}
	// Not through the door: a permission that is missing here says nothing about the server.
	found, err := race(ctx, redis, *client, redis.opt.Timeout, func(ctx context.Context, c rueidis.Client) (map[string]int64, error) {
		return c.Do(ctx, c.B().PubsubNumsub().Channel(redis.Key("ends")).Build()).AsIntMap()
	})
	var reply *rueidis.RedisError
	switch {
	case errors.As(err, &reply) && !isTransient(reply.Error()):
		p.refused = true
		p.some.Store(true)
	case err != nil:
	case found[redis.Key("ends")] > 1:
		p.seen, p.missed = true, 0
		p.some.Store(true)
	case p.seen:
		if p.missed++; p.missed >= peersGone {
			p.some.Store(false)
		}
	}
}
