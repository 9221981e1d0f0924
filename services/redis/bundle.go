package redis

import (
	"context"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/internal/require"
	"gatehouse/models"
)

const (
	bundlesUnderway = 4  // at once; what comes then waits for one of them to return, or for bundler.patience
	bundleCalls     = 16 // at most in one, which does not wait when it is full: a longer script would hold up all other calls
)

// Batcher runs a script for calls of one key each. Calls that come while others are
// under way go together in one run, which Redis pays for once, as a database
// commits a group; one that finds few under way goes at once and alone.
//
// The script takes one key and so many args for each call, of which the first is the
// call's id, and replies so many integers for each. With an empty id it must change
// nothing. In a Cluster keys are in different places, and each goes alone.
type Batcher struct {
	redis         *Client
	script        *rueidis.Lua
	args, replies int
	patience      time.Duration // a call waits so long for others at most: Redis may be far away
	spawn         func(task func()) bool

	mu       sync.Mutex
	underway int
	next     *bundle // only there while at least bundlesUnderway are under way, or for patience
}

// bundle is calls that go together. Its replies may be read when done is closed.
type bundle struct {
	keys, args []string
	done       chan struct{}
	replies    []int64
	err        error
}

// NewBatcher returns a bundler for a script that takes so many args and gives so many replies
// for each call. spawn runs a task in the background; it is false if that has come to an end.
func NewBatcher(redis *Client, script *rueidis.Lua, args, replies int, spawn func(task func()) bool) *Batcher {
	require.Must("redis.NewBatcher", require.Argument{Name: "Client", Value: redis}, require.Argument{Name: "script", Value: script}, require.Argument{Name: "spawn", Value: spawn})
	return &Batcher{redis: redis, script: script, args: args, replies: replies, patience: max(redis.opt.Timeout/50, time.Millisecond), spawn: spawn}
}

// Hold lets calls from now on wait for each other until release, so that a test knows which
// go together.
func (b *Batcher) Hold() (release func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.underway = bundlesUnderway
	return func() {
		for range bundlesUnderway {
			b.landed()
		}
	}
}

// Waiting counts the calls that wait to go together.
func (b *Batcher) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		return 0
	}
	return len(b.next.keys)
}

// Exec runs the script for one key, through the door. A caller that leaves before
// its bundle is sent leaves an empty id behind; one that leaves later may have been
// served.
func (b *Batcher) Exec(ctx context.Context, key string, args ...string) ([]int64, error) {
	return doAt(ctx, b.redis, b.redis.client.Load(), b.redis.nodes.Load().of(key), func(ctx context.Context, client rueidis.Client) ([]int64, error) {
		shared := *b.redis.client.Load()
		b.mu.Lock()
		if b.underway < bundlesUnderway || client != shared || client.Mode() == rueidis.ClientModeCluster {
			b.underway++
			b.mu.Unlock()
			defer b.landed()
			return b.run(ctx, client, []string{key}, args)
		}
		joined, place := b.join(key, args)
		b.mu.Unlock()
		select {
		case <-joined.done:
			if joined.err != nil {
				return nil, joined.err
			}
			return joined.replies[b.replies*place:][:b.replies], nil
		case <-ctx.Done():
			b.mu.Lock()
			defer b.mu.Unlock()
			if joined == b.next {
				joined.args[b.args*place] = ""
			}
			return nil, ctx.Err()
		}
	})
}

// join adds a call to the next bundle. b.mu is held.
func (b *Batcher) join(key string, args []string) (joined *bundle, place int) {
	if b.next == nil {
		opened := &bundle{done: make(chan struct{})}
		b.next = opened
		time.AfterFunc(b.patience, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.next == opened {
				b.dispatch()
			}
		})
	}
	joined, place = b.next, len(b.next.keys)
	joined.keys, joined.args = append(joined.keys, key), append(joined.args, args...)
	if len(joined.keys) == bundleCalls {
		b.dispatch()
	}
	return joined, place
}

// landed makes room for what came meanwhile.
func (b *Batcher) landed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.underway--
	if b.next != nil && b.underway < bundlesUnderway {
		b.dispatch()
	}
}

// dispatch sends the next bundle. b.mu is held.
func (b *Batcher) dispatch() {
	leaving := b.next
	b.next = nil
	b.underway++
	if !b.spawn(func() { b.send(leaving) }) {
		b.underway--
		leaving.err = ErrNotSent
		close(leaving.done)
	}
}

func (b *Batcher) send(leaving *bundle) {
	defer b.landed()
	defer close(leaving.done)
	ctx, cancel := context.WithTimeout(context.Background(), b.redis.opt.Timeout)
	defer cancel()
	leaving.replies, leaving.err = b.run(ctx, *b.redis.client.Load(), leaving.keys, leaving.args)
}

func (b *Batcher) run(ctx context.Context, client rueidis.Client, keys, args []string) ([]int64, error) {
	replies, err := b.script.Exec(ctx, client, keys, args).AsIntSlice()
	if err == nil && len(replies) != b.replies*len(keys) {
		b.redis.log.Error("a script answered for another number of calls", "calls", len(keys), "numbers", len(replies))
		return nil, models.ErrUnavailable
	}
	return replies, err
}
