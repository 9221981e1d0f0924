package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/internal/require"
)

const (
	// trackingTrust is how long a value is right after Redis answered on the connection
	// that would have reported its change.
	trackingTrust = 2 * time.Second

	trackingPing  = 500 * time.Millisecond // between two pings of the connection
	trackingRetry = 30 * time.Second       // at most, between two tries where Redis refuses to track
	trackingHear  = time.Second            // until a change that this instance made itself is reported
	trackingProof = 10 * time.Second       // between two proofs: permissions can change
	trackingDoubt = 3                      // failures in a row, until they are no accident
)

// Tracking reads keys on a connection of its own, on which Redis reports when they change
// (CLIENT TRACKING), so that a caller may keep what it has read.
//
// Redis reports a change before it answers a later ping on the same connection. So a value
// whose change was not reported was right when the last answered ping was sent, and is
// trusted for trackingTrust from then on. Each new connection begins a new generation:
// what was read in an earlier one is not reported any more.
//
// Not every Redis, user and proxy reports changes. A generation counts only once it has
// reported a change that this instance made for that purpose. Until then, and where that
// fails, Get reads on the connection that all calls share, and nothing is reported.
//
// All methods may be called concurrently.
type Tracking struct {
	redis      *Client
	changed    func(key string)
	generation atomic.Uint64
	state      atomic.Pointer[trackingState]
	reads      atomic.Pointer[rueidis.Client] // for Get; nil while nothing is reported
	proofs     chan string                    // reported keys that the proofs changed

	// Only Run and what it calls use these.
	client   rueidis.Client
	ids      map[string]int64 // of the connections that answered last, by node
	proven   uint64           // the generation that reported a change
	provenAt time.Time
	failures int  // in a row, while Redis is available
	logged   bool // that Redis does not report changes
}

// trackingState says that values read in a generation were right at a time.
type trackingState struct {
	generation uint64
	rightAt    time.Time
}

// TrackedValue is what Tracking.Get returns.
type TrackedValue struct {
	Text       string
	RightAt    time.Time // when the key had this value for certain, by the monotonic clock
	Generation uint64    // for Tracking.Covers; 0: its changes are not reported
}

// NewTracking calls changed for each key that Redis reports as changed, on the goroutine
// that reads the connection: it must not block. Nothing is reported before Run.
func NewTracking(client *Client, changed func(key string)) *Tracking {
	require.Must("redis.NewTracking", require.Argument{Name: "Client", Value: client}, require.Argument{Name: "changed", Value: changed})
	t := &Tracking{redis: client, changed: changed, proofs: make(chan string, 1)}
	t.generation.Store(1)
	t.state.Store(&trackingState{})
	return t
}

// Covers reports whether a value of that generation whose change was not reported is
// still right. Generation 0 is covered never.
func (t *Tracking) Covers(generation uint64, now time.Time) bool {
	state := t.state.Load()
	return generation != 0 && generation == state.generation && now.Sub(state.rightAt) < trackingTrust
}

// Get reads a key. Its errors are those of Client.DoAt; rueidis.Nil if there is no such key.
func (t *Tracking) Get(ctx context.Context, key string) (TrackedValue, error) {
	read := TrackedValue{RightAt: time.Now(), Generation: t.generation.Load()}
	client := t.reads.Load()
	if client == nil {
		read.Generation = 0
		msg, err := t.redis.DoAt(ctx, key, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
			return c.Do(ctx, c.B().Get().Key(key).Build())
		})
		if err != nil {
			return TrackedValue{}, err
		}
		read.Text, err = msg.ToString()
		return read, err
	}
	msg, err := doAt(ctx, t.redis, client, t.redis.nodes.Load().of(key), func(ctx context.Context, c rueidis.Client) (rueidis.RedisMessage, error) {
		msg, err := getTracked(ctx, c, key)
		if _, refused := rueidis.IsRedisErr(err); refused && t.reads.CompareAndSwap(client, nil) {
			t.generation.Add(1) // the user's permissions have changed: to be proven again
		}
		return msg, err
	})
	if err != nil {
		return TrackedValue{}, err
	}
	if msg.IsCacheHit() { // rueidis's own copy is as good as the connection was when it answered last
		read.RightAt = t.state.Load().rightAt
	}
	read.Text, err = msg.ToString()
	return read, err
}

// getTracked reads a key so that Redis reports its next change.
func getTracked(ctx context.Context, c rueidis.Client, key string) (rueidis.RedisMessage, error) {
	return c.DoCache(ctx, c.B().Get().Key(key).Cache(), trackingTrust).ToMessage()
}

// Run connects, and pings the connection until ctx ends.
func (t *Tracking) Run(ctx context.Context) {
	opt := t.redis.opt
	unwanted := ""
	switch {
	case opt.Disabled || opt.Embedded: // the embedded Redis cannot track
		return
	case opt.Client.AlwaysRESP2:
		unwanted = "protocol=2 is set"
	case opt.Client.DisableCache:
		unwanted = "client_cache=0 is set"
	}
	if unwanted != "" {
		t.redis.log.Info("Redis is not asked to report changed keys: copies of them are trusted for 2 s", "reason", unwanted)
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
	errNotReported = errors.New("a change was not reported: the user may lack client|caching, multi, exec or pttl, or a proxy may not pass it on")
	errProofNotSet = errors.New("the key that proves the connection was not set")
)

// after records the outcome of a ping and returns when to send the next one. That Redis is
// away as a whole is logged elsewhere.
func (t *Tracking) after(err error) time.Duration {
	if err == nil {
		if t.logged {
			t.redis.log.Info("Redis reports changed keys: copies of them are trusted for longer than 2 s")
		}
		t.failures, t.logged = 0, false
		return trackingPing
	}
	t.reads.Store(nil)
	if !t.redis.Available() || errors.Is(err, errProofNotSet) {
		t.failures = 0
		return trackingPing
	}
	t.failures++
	if !t.logged && (refusesTracking(err) || t.failures >= trackingDoubt) {
		t.logged = true
		t.redis.log.Warn("Redis does not report changed keys: copies of them are trusted for 2 s only", "reason", trackingReason(err))
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
	return errors.As(err, &reply) && causeOfReply(reply.Error(), "", nil).lasting()
}

// trackingReason is one line: rueidis adds to what Redis said what it did itself.
func trackingReason(err error) string {
	first, _, _ := strings.Cut(err.Error(), "\n")
	switch {
	case first == rueidis.ErrNoCache.Error():
		return "it does not speak RESP3"
	case errors.Is(err, rueidis.ErrDoCacheAborted):
		return errNotReported.Error()
	}
	return first
}

// ping asks each node which connection answers: it may be another one before this
// instance learns that the last one broke. A generation that is not proven yet is proven.
func (t *Tracking) ping(ctx context.Context) error {
	if err := t.connect(); err != nil {
		return err
	}
	generation, sentAt := t.generation.Load(), time.Now()
	ids := map[string]int64{}
	for address, node := range t.client.Nodes() {
		id, err := race(ctx, t.redis, node, t.redis.opt.Timeout, func(ctx context.Context, c rueidis.Client) (int64, error) {
			return c.Do(ctx, c.B().ClientId().Build()).AsInt64()
		})
		if err != nil {
			return err
		}
		ids[address] = id
	}
	if !maps.Equal(ids, t.ids) {
		generation = t.generation.Add(1) // changes of what is read from now on are reported
		t.ids = ids
	}
	if generation != t.proven || sentAt.Sub(t.provenAt) > trackingProof {
		if err := t.prove(ctx); err != nil {
			t.proven = 0
			t.generation.Add(1)
			return err
		}
		t.proven, t.provenAt = generation, sentAt
	} else if generation == t.generation.Load() {
		t.state.Store(&trackingState{generation, sentAt})
	}
	if generation == t.generation.Load() {
		t.reads.Store(&t.client)
	}
	return nil
}

func (t *Tracking) connect() error {
	if t.client != nil {
		return nil
	}
	opt := t.redis.opt.Client
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

// prove reads a key as Get does, and changes it: Redis must report that. A proxy may accept
// every command and pass on no report, and a user may lack one of the commands.
func (t *Tracking) prove(ctx context.Context) error {
	key := t.redis.Key("tracking:" + rand.Text())
	select {
	case <-t.proofs: // of an earlier try
	default:
	}
	_, err := race(ctx, t.redis, t.client, t.redis.opt.Timeout, func(ctx context.Context, c rueidis.Client) (rueidis.RedisMessage, error) {
		return getTracked(ctx, c, key)
	})
	if err != nil && !rueidis.IsRedisNil(err) {
		return err
	}
	_, err = t.redis.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Set().Key(key).Value("1").Px(time.Second).Build())
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errProofNotSet, err)
	}
	wait := time.NewTimer(trackingHear)
	defer wait.Stop()
	for {
		select {
		case reported := <-t.proofs:
			if reported == key {
				return nil
			}
		case <-wait.C:
			return errNotReported
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// invalidated runs on the goroutine that reads the connection. nil is everything: Redis was
// emptied, or the connection is gone and with it what it would have reported.
func (t *Tracking) invalidated(keys []rueidis.RedisMessage) {
	if keys == nil {
		t.generation.Add(1)
		return
	}
	for _, message := range keys {
		key, err := message.ToString()
		if err != nil {
			continue
		}
		if !strings.HasPrefix(key, t.redis.Key("tracking:")) {
			t.changed(key)
			continue
		}
		select {
		case t.proofs <- key:
		default: // one of an earlier try is there: no proof waits for either
		}
	}
}

// close gives a connection that hangs no more than its timeouts.
func (t *Tracking) close() {
	if t.client == nil {
		return
	}
	done := make(chan struct{})
	go func() { t.client.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * connWriteTimeout): // the process is about to end
	}
}
