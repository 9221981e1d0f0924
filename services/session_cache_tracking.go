package services

import (
	"context"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// trackingPing is how often the tracking connection is asked whether it lives.
const trackingPing = 500 * time.Millisecond

// sessionTracking is the connection on which Redis tells of changed copies. Redis
// sends what changed before it answers a later ping on the same connection. So a
// copy that nobody invalidated was right when the last answered ping was sent, and
// is used for 2 s from then. Another connection begins another life, and what was
// read in an earlier one is not tracked any more.
type sessionTracking struct {
	redis  *Redis
	prefix string
	memory *sessionMemory
	client atomic.Pointer[rueidis.Client]
	life   atomic.Uint64
	state  atomic.Pointer[trackingState]
	ids    map[string]int64 // of the connections that answered last, by node
}

// trackingState says that copies read in a life were right at a time.
type trackingState struct {
	life    uint64
	rightAt time.Time
}

func newSessionTracking(redis *Redis, keyPrefix string, memory *sessionMemory) *sessionTracking {
	t := &sessionTracking{redis: redis, prefix: keyPrefix, memory: memory}
	t.life.Store(1)
	t.state.Store(&trackingState{})
	return t
}

// possible reports whether this Redis can track: the embedded one cannot.
func (t *sessionTracking) possible() bool { return !t.redis.opt.Disabled && !t.redis.opt.Embedded }

// covers reports whether a tracked copy is still told of.
func (t *sessionTracking) covers(life uint64, now time.Time) bool {
	state := t.state.Load()
	return life == state.life && now.Sub(state.rightAt) < memoryFor
}

// run connects and pings until ctx ends.
func (t *sessionTracking) run(ctx context.Context) {
	if !t.possible() {
		return
	}
	ticker := time.NewTicker(trackingPing)
	defer ticker.Stop()
	for {
		t.ping(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.close()
			return
		}
	}
}

func (t *sessionTracking) ping(ctx context.Context) {
	client := t.client.Load()
	if client == nil {
		connected, err := rueidis.NewClient(t.options())
		if connected == nil {
			return
		}
		if err != nil {
			connected.Close()
			return
		}
		client = &connected
		t.client.Store(client)
	}
	life, sentAt := t.life.Load(), time.Now()
	ids := map[string]int64{}
	for address, node := range (*client).Nodes() {
		// A ping that says which connection answers: it may be another one before
		// anybody has told us that the last one broke.
		id, err := race(ctx, t.redis, node, t.redis.opt.Timeout, func(ctx context.Context, c rueidis.Client) (int64, error) {
			return c.Do(ctx, c.B().ClientId().Build()).AsInt64()
		})
		if err != nil {
			return
		}
		ids[address] = id
	}
	switch {
	case !maps.Equal(ids, t.ids):
		t.life.Add(1) // what is read from now on is tracked
	case life == t.life.Load():
		t.state.Store(&trackingState{life: life, rightAt: sentAt})
	}
	t.ids = ids
}

func (t *sessionTracking) options() rueidis.ClientOption {
	opt := t.redis.opt.Client
	opt.PipelineMultiplex = -1 // one connection to each node: the one that is pinged
	opt.OnInvalidations = t.invalidated
	return opt
}

// invalidated runs on the goroutine that reads the connection. nil is everything:
// Redis was emptied, or the connection is gone and with it what it would have told.
func (t *sessionTracking) invalidated(keys []rueidis.RedisMessage) {
	if keys == nil {
		t.life.Add(1)
		return
	}
	for _, message := range keys {
		name, err := message.ToString()
		if err != nil {
			continue
		}
		hash, ours := strings.CutPrefix(name, t.prefix)
		if key, ok := keyOfHash(hash); ours && ok {
			t.memory.invalidate(key)
		}
	}
}

// close gives a connection that hangs no more than its timeouts.
func (t *sessionTracking) close() {
	client := t.client.Load()
	if client == nil {
		return
	}
	done := make(chan struct{})
	go func() { (*client).Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * connWriteTimeout): // the process is about to end
	}
}
