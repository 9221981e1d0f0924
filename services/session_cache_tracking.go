package services

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

const (
	trackingPing  = 500 * time.Millisecond // how often the tracking connection is asked whether it lives
	trackingRetry = 30 * time.Second       // at most, between two tries where Redis refuses to track
	trackingHear  = time.Second            // to be told of a change that this instance makes itself
	trackingProof = 10 * time.Second       // between two proofs: permissions can change
	trackingDoubt = 3                      // failures in a row, until they are no accident

	trackingProofs = "tracking:" // starts the keys that an instance changes itself
)

// sessionTracking is the connection on which Redis tells of changed copies. Redis
// sends what changed before it answers a later ping on the same connection. So a
// copy that was not invalidated was right when the last answered ping was sent, and
// is used for 2 s from then. Another connection begins another life, and what was
// read in an earlier one is not tracked any more.
//
// Not every Redis, user and proxy can do that. A life counts only once a change was
// told of in it. Until then, and where it fails, copies are read on the connection
// that everything else uses, and are good for 2 s.
type sessionTracking struct {
	redis  *Redis
	log    *slog.Logger
	prefix string
	memory *sessionMemory
	life   atomic.Uint64
	state  atomic.Pointer[trackingState]
	reads  atomic.Pointer[rueidis.Client] // what copies are read on; nil while nothing is told of
	heard  chan string                    // keys of proofs that changed

	// Only run and what it calls use these.
	client   rueidis.Client
	ids      map[string]int64 // of the connections that answered last, by node
	proven   uint64           // the life in which a change was told of
	provenAt time.Time
	failures int  // in a row, while Redis is there
	told     bool // that Redis does not track
}

// trackingState says that copies read in a life were right at a time.
type trackingState struct {
	life    uint64
	rightAt time.Time
}

func newSessionTracking(redis *Redis, keyPrefix string, memory *sessionMemory, log *slog.Logger) *sessionTracking {
	t := &sessionTracking{redis: redis, log: log, prefix: keyPrefix, memory: memory, heard: make(chan string, 1)}
	t.life.Store(1)
	t.state.Store(&trackingState{})
	return t
}

// unwanted says why Redis is not asked to track, "" if it is.
func (t *sessionTracking) unwanted() string {
	switch opt := t.redis.ClientOption(); {
	case t.redis.Disabled():
		return "there is no Redis"
	case t.redis.Embedded():
		return "the embedded Redis cannot"
	case opt.AlwaysRESP2:
		return "protocol=2 is set"
	case opt.DisableCache:
		return "client_cache=0 is set"
	}
	return ""
}

// covers reports whether a tracked copy is still told of.
func (t *sessionTracking) covers(life uint64, now time.Time) bool {
	state := t.state.Load()
	return life == state.life && now.Sub(state.rightAt) < memoryFor
}

// run connects and pings until ctx ends.
func (t *sessionTracking) run(ctx context.Context) {
	if why := t.unwanted(); why != "" {
		if !t.redis.Disabled() && !t.redis.Embedded() {
			t.log.Info("Redis is not asked to tell of changed sessions: copies in memory are good for 2 s", "reason", why)
		}
		return
	}
	defer t.close()
	for {
		wait := t.after(t.ping(ctx))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

var (
	errUntold   = errors.New("a change was not told of: the user may lack client|caching, multi, exec or pttl, or a proxy may not pass it on")
	errNotAsked = errors.New("not asked")
)

// after notes the outcome of a ping and says when to send the next one. A Redis that
// is away as a whole is told of elsewhere.
func (t *sessionTracking) after(err error) time.Duration {
	switch {
	case err == nil:
		if t.told {
			t.log.Info("Redis tells of changed sessions: copies in memory are good for longer than 2 s")
		}
		t.failures, t.told = 0, false
		return trackingPing
	case !t.redis.Available() || errors.Is(err, errNotAsked):
		t.reads.Store(nil)
		t.failures = 0
		return trackingPing
	}
	t.reads.Store(nil)
	t.failures++
	if !t.told && (refusesTracking(err) || t.failures >= trackingDoubt) {
		t.told = true
		t.log.Warn("Redis does not tell of changed sessions: copies in memory are good for 2 s only", "reason", trackingReason(err))
	}
	if errors.Is(err, context.DeadlineExceeded) { // perhaps just busy
		return trackingPing
	}
	return min(trackingPing<<min(t.failures-1, 10), trackingRetry)
}

// refusesTracking reports whether an answer means that it will not change by itself.
func refusesTracking(err error) bool {
	if errors.Is(err, rueidis.ErrNoCache) {
		return true
	}
	var reply *rueidis.RedisError
	return errors.As(err, &reply) && RefusesForGood(reply.Error())
}

// trackingReason is one line: the library adds to what Redis said what it did itself.
func trackingReason(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	switch {
	case first == rueidis.ErrNoCache.Error():
		return "it does not speak RESP3"
	case errors.Is(err, rueidis.ErrDoCacheAborted):
		return errUntold.Error()
	}
	return first
}

// ping asks each connection whether it is still the one on which copies were read. In
// a life that is not proven yet, it proves it.
func (t *sessionTracking) ping(ctx context.Context) error {
	if err := t.connect(); err != nil {
		return err
	}
	life, sentAt := t.life.Load(), time.Now()
	ids := map[string]int64{}
	for address, node := range t.client.Nodes() {
		// A ping that says which connection answers: it may be another one before this
		// instance is told that the last one broke.
		id, err := Race(ctx, t.redis, node, t.redis.Timeout(), func(ctx context.Context, c rueidis.Client) (int64, error) {
			return c.Do(ctx, c.B().ClientId().Build()).AsInt64()
		})
		if err != nil {
			return err
		}
		ids[address] = id
	}
	if !maps.Equal(ids, t.ids) {
		life = t.life.Add(1) // what is read from now on is tracked
		t.ids = ids
	}
	if life != t.proven || sentAt.Sub(t.provenAt) > trackingProof {
		if err := t.prove(ctx); err != nil {
			t.proven = 0
			t.life.Add(1)
			return err
		}
		t.proven, t.provenAt = life, sentAt
	} else if life == t.life.Load() {
		t.state.Store(&trackingState{life: life, rightAt: sentAt})
	}
	if life == t.life.Load() {
		t.reads.Store(&t.client)
	}
	return nil
}

func (t *sessionTracking) connect() error {
	if t.client != nil {
		return nil
	}
	opt := t.redis.ClientOption()
	opt.PipelineMultiplex = -1 // one connection to each node: the one that is pinged
	opt.OnInvalidations = t.invalidated
	client, err := rueidis.NewClient(opt)
	if err != nil {
		if client != nil {
			client.Close()
		}
		return err
	}
	t.client = client
	return nil
}

// prove reads a key as copies are read, and changes it: Redis must tell of that. A
// proxy may say yes to everything and pass on nothing, and a user may lack one of the
// commands.
func (t *sessionTracking) prove(ctx context.Context) error {
	key := t.redis.Key(trackingProofs + rand.Text())
	select {
	case <-t.heard: // of an earlier try
	default:
	}
	_, err := Race(ctx, t.redis, t.client, t.redis.Timeout(), func(ctx context.Context, c rueidis.Client) (rueidis.RedisMessage, error) {
		return readTracked(ctx, c, key)
	})
	if err != nil && !rueidis.IsRedisNil(err) {
		return err
	}
	_, err = t.redis.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Set().Key(key).Value("1").Px(time.Second).Build())
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errNotAsked, err)
	}
	wait := time.NewTimer(trackingHear)
	defer wait.Stop()
	for {
		select {
		case heard := <-t.heard:
			if heard == key {
				return nil
			}
		case <-wait.C:
			return errUntold
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// readTracked reads a key so that Redis tells of its next change.
func readTracked(ctx context.Context, c rueidis.Client, key string) (rueidis.RedisMessage, error) {
	return c.DoCache(ctx, c.B().Get().Key(key).Cache(), redisLocalFor).ToMessage()
}

// refused ends the reads on a client that Redis refuses them on, until they are
// proven again: the user's permissions have changed.
func (t *sessionTracking) refused(client *rueidis.Client) {
	if t.reads.CompareAndSwap(client, nil) {
		t.life.Add(1)
	}
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
		if hash, ours := strings.CutPrefix(name, t.prefix); ours {
			if key, ok := keyOfHash(hash); ok {
				t.memory.invalidate(key)
			}
			continue
		}
		select {
		case t.heard <- name:
		default: // one of an earlier try is there: no proof waits for either
		}
	}
}

// close gives a connection that hangs no more than its timeouts.
func (t *sessionTracking) close() {
	if t.client == nil {
		return
	}
	done := make(chan struct{})
	go func() { t.client.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * ConnWriteTimeout): // the process is about to end
	}
}
