package lock

import (
	"context"
	"errors"
	"sync/atomic"

	"gatehouse/services/redis"
)

// peersGone is how many looks in a row find no other instance until none is expected. An
// instance whose connection was lost subscribes again within a few.
const peersGone = 10

// peers knows whether other instances may have locks that this one does not know of. When
// the server has forgotten its locks, a newcomer would take them from holders there, so free
// locks are kept for them for a while; an instance that is alone knows all there can be.
type peers struct {
	seen    bool
	missed  int          // looks in a row since
	refused bool         // this instance cannot look
	some    atomic.Bool  // others are expected
	since   atomic.Int64 // how often others were found: what was true while there were none is no more
}

// none reports whether no other instance is expected.
func (p *peers) none() bool { return !p.some.Load() }

// look counts the instances that listen for the end of locks.
func (p *peers) look(ctx context.Context, rdb *redis.Client) {
	if p.refused {
		return
	}
	switch found, err := rdb.Subscribers(ctx, "ends"); {
	case errors.Is(err, redis.ErrSubscribersUnknown):
		p.refused = true
		p.expect()
	case err != nil:
	case found > 1:
		p.seen, p.missed = true, 0
		p.expect()
	case p.seen:
		if p.missed++; p.missed >= peersGone {
			p.some.Store(false)
		}
	}
}

// expect notes that there are others.
func (p *peers) expect() {
	p.since.Add(1)
	p.some.Store(true)
}
