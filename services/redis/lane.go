package redis

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// lane is a second connection to the one server, for a call that is alone: there it
// writes and reads by itself, where on the shared connection it would wake two
// goroutines that have nothing to bundle. It is never needed: calls that cannot
// have it go on the shared one.
type lane struct {
	opt    rueidis.ClientOption
	client atomic.Pointer[rueidis.Client]
	live   liveness
	busy   atomic.Bool // with two calls at a time rueidis would give up writing in the caller
	used   atomic.Bool // since the last probe

	// Calls on the shared connection are answered in order. One whose caller left
	// may still be on its way there, and what follows on the lane would overtake it:
	// a release the acquire that it is to undo.
	left     atomic.Uint64 // how many callers have left theirs
	answered atomic.Uint64 // as it was before the last call that was answered
}

// newLane is a lane for calls that end within timeout, not yet connected.
func newLane(opt rueidis.ClientOption, timeout time.Duration) *lane {
	l := &lane{opt: opt}
	l.opt.ConnWriteTimeout = max(opt.ConnWriteTimeout, 2*timeout) // here it bounds the reply as well
	l.opt.AlwaysPipelining = false
	l.opt.DisableCache = true // tracking needs a goroutine that reads
	l.opt.ForceSingleClient = true
	l.opt.Dialer.KeepAlive = -1 // rueidis would ping at such an interval, beside calls; the probe does it instead
	l.live.watch(&l.opt, func() {})
	return l
}

// take is the lane's client, for a caller who calls free afterwards; nil if the lane
// cannot be had now.
func (l *lane) take() rueidis.Client {
	if !l.live.now() || l.answered.Load() != l.left.Load() || !l.busy.CompareAndSwap(false, true) {
		return nil
	}
	client := l.client.Load()
	if client == nil {
		l.free()
		return nil
	}
	l.used.Store(true)
	return *client
}

func (l *lane) free() { l.busy.Store(false) }

// followed is told whether a call on the shared connection was answered, and what
// left was before it.
func (l *lane) followed(before uint64, answered bool) {
	if !answered {
		l.left.Add(1)
	} else if l.answered.Load() != before {
		l.answered.Store(before)
	}
}

// distrust keeps calls off the lane until it has served again: it is not read
// between calls, so an outage that ended its connection shows only at the next one.
func (l *lane) distrust() { l.live.lost.Add(1) }

// keep connects the lane anew if it is not connected, and notices when it no longer
// serves. It returns when that has come to an end, and not much after ctx.
func (l *lane) keep(ctx context.Context, ask call[struct{}]) {
	if (l.live.now() && l.used.Swap(false)) || !l.busy.CompareAndSwap(false, true) {
		return
	}
	defer l.free()
	lost := l.live.lost.Load()
	client := l.client.Load()
	if client == nil {
		connected, err := rueidis.NewClient(l.opt)
		if connected == nil || err != nil {
			if connected != nil {
				connected.Close()
			}
			return
		}
		client = &connected
		l.client.Store(client)
	}
	if _, err := ask(ctx, *client); err != nil {
		(*client).Close()
		l.client.Store(nil)
		return
	}
	l.live.served(lost)
}

// close ends the connection; no call is under way any more.
func (l *lane) close() {
	if client := l.client.Load(); client != nil {
		(*client).Close()
	}
}
