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
	runsUnderway = 4  // at once; later calls wait for one to return, or for Batcher.patience
	batchCalls   = 16 // most calls in one run: a longer script would hold up all other calls
)

// Batcher runs a Lua script for calls of one key each. Calls that come while four runs are
// under way go together in one run of at most 16, which Redis pays for once, as a database
// commits a group of transactions. With fewer runs under way a call goes at once and alone. In
// a Cluster, where keys live on different nodes, each call goes alone.
//
// A Batcher needs no Close: it has nothing under way once all its calls have returned. It may
// be used concurrently.
type Batcher struct {
	client        *Client
	script        *rueidis.Lua
	args, replies int
	patience      time.Duration // a call waits no longer for others: Redis may be far away
	spawn         func(task func()) bool

	mu       sync.Mutex
	underway int
	next     *batch // nil unless runsUnderway are under way, or for patience
}

// batch is calls that go together. Its replies may be read when done is closed.
type batch struct {
	keys, args []string
	done       chan struct{}
	replies    []int64
	err        error
}

// NewBatcher returns a Batcher for a script that takes one key and args arguments for each
// call, and returns replies integers for each call, in order. The first argument of a call is
// its id; with an empty id the script must change nothing. spawn runs a task in the background
// and returns false if it does not any more. NewBatcher panics if one of the three is nil.
func NewBatcher(client *Client, script *rueidis.Lua, args, replies int, spawn func(task func()) bool) *Batcher {
	require.Must("redis.NewBatcher", require.Argument{Name: "Client", Value: client},
		require.Argument{Name: "script", Value: script}, require.Argument{Name: "spawn", Value: spawn})
	return &Batcher{
		client: client, script: script, args: args, replies: replies,
		patience: max(client.opt.Timeout/50, time.Millisecond), spawn: spawn,
	}
}

// Hold lets calls from now on wait for each other until release, however long that takes. It is
// for tests, which then know the calls that go together.
func (b *Batcher) Hold() (release func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	patience := b.patience
	b.underway += runsUnderway // one that has its replies may still count as under way
	b.patience = time.Hour
	return func() {
		b.mu.Lock()
		b.patience = patience
		b.mu.Unlock()
		for range runsUnderway {
			b.runDone()
		}
	}
}

// Waiting counts the calls that wait to go together. It is for tests.
func (b *Batcher) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		return 0
	}
	return len(b.next.keys)
}

// Exec runs the script for one key and returns its integers. Errors are those of Client.Do.
// A caller whose ctx ends before its batch is sent has changed nothing; one whose ctx ends
// later may have been served.
func (b *Batcher) Exec(ctx context.Context, key string, args ...string) ([]int64, error) {
	return doAt(ctx, b.client, b.client.shared.Load(), b.client.nodes.Load().of(key), func(ctx context.Context, rdb rueidis.Client) ([]int64, error) {
		b.mu.Lock()
		if b.underway < runsUnderway || rdb.Mode() == rueidis.ClientModeCluster {
			b.underway++
			b.mu.Unlock()
			defer b.runDone()
			return b.run(ctx, rdb, []string{key}, args)
		}
		joined, at := b.join(key, args)
		b.mu.Unlock()
		select {
		case <-joined.done:
			if joined.err != nil {
				return nil, joined.err
			}
			return joined.replies[b.replies*at:][:b.replies], nil
		case <-ctx.Done():
			b.mu.Lock()
			defer b.mu.Unlock()
			if joined == b.next {
				joined.args[b.args*at] = "" // the call's id
			}
			return nil, ctx.Err()
		}
	})
}

// join adds a call to the next batch and returns its index there. b.mu is held.
func (b *Batcher) join(key string, args []string) (joined *batch, at int) {
	if b.next == nil {
		opened := &batch{done: make(chan struct{})}
		b.next = opened
		time.AfterFunc(b.patience, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.next == opened {
				b.dispatch()
			}
		})
	}
	joined, at = b.next, len(b.next.keys)
	joined.keys, joined.args = append(joined.keys, key), append(joined.args, args...)
	if len(joined.keys) == batchCalls {
		b.dispatch()
	}
	return joined, at
}

// runDone sends the calls that waited for a run to return.
func (b *Batcher) runDone() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.underway--
	if b.next != nil && b.underway < runsUnderway {
		b.dispatch()
	}
}

// dispatch sends the next batch. b.mu is held.
func (b *Batcher) dispatch() {
	sent := b.next
	b.next = nil
	b.underway++
	if !b.spawn(func() { b.send(sent) }) {
		b.underway--
		sent.err = ErrNotSent
		close(sent.done)
	}
}

func (b *Batcher) send(sent *batch) {
	defer b.runDone()
	defer close(sent.done)
	ctx, cancel := context.WithTimeout(context.Background(), b.client.opt.Timeout)
	defer cancel()
	sent.replies, sent.err = b.run(ctx, *b.client.shared.Load(), sent.keys, sent.args)
}

func (b *Batcher) run(ctx context.Context, rdb rueidis.Client, keys, args []string) ([]int64, error) {
	replies, err := b.script.Exec(ctx, rdb, keys, args).AsIntSlice()
	if err == nil && len(replies) != b.replies*len(keys) {
		b.client.log.Error("a script returned an unexpected number of integers", "calls", len(keys), "integers", len(replies))
		return nil, models.ErrUnavailable
	}
	return replies, err
}
