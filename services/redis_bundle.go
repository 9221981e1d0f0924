package services

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
)

const (
	bundlesUnderway = 4  // at once; what comes meanwhile waits for one of them to return
	bundleCalls     = 16 // at most in one, which does not wait when it is full: nobody else has Redis for so long
)

// bundler runs a script for calls of their own keys: those that come while others are
// under way go together in one run, which Redis pays for once (as a database commits
// a group). A call that finds few under way goes at once and alone.
//
// The script takes one key and so many args for each call and replies so many
// integers for each. In a Cluster keys are in different places, and each goes alone.
type bundler struct {
	redis         *Redis
	script        *rueidis.Lua
	args, replies int

	mu       sync.Mutex
	underway int
	next     *bundle
}

// bundle is calls that go together. Its replies may be read when done is closed.
type bundle struct {
	keys, args []string
	done       chan struct{}
	replies    []int64
	err        error
}

// exec runs the script for one key, through the door. A caller that leaves before
// the script is sent gives the first of its args up for an empty one, by which the
// script must change nothing; one that leaves later may have been served.
func (b *bundler) exec(ctx context.Context, key string, args ...string) ([]int64, error) {
	return doOn(ctx, b.redis, b.redis.client.Load(), func(ctx context.Context, client rueidis.Client) ([]int64, error) {
		b.mu.Lock()
		if b.underway < bundlesUnderway || client.Mode() == rueidis.ClientModeCluster {
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

// join adds a call to the next bundle, and sends that when it is full.
func (b *bundler) join(key string, args []string) (joined *bundle, place int) {
	if b.next == nil {
		b.next = &bundle{done: make(chan struct{})}
	}
	joined, place = b.next, len(b.next.keys)
	joined.keys, joined.args = append(joined.keys, key), append(joined.args, args...)
	if len(joined.keys) == bundleCalls {
		b.next = nil
		b.underway++
		go b.send(joined)
	}
	return joined, place
}

// landed sends what came meanwhile.
func (b *bundler) landed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil && b.underway <= bundlesUnderway {
		go b.send(b.next)
		b.next = nil
		return
	}
	b.underway--
}

func (b *bundler) send(together *bundle) {
	defer b.landed()
	defer close(together.done)
	ctx := b.redis.deadlines.under(context.Background(), time.Now())
	together.replies, together.err = b.run(ctx, *b.redis.client.Load(), together.keys, together.args)
}

func (b *bundler) run(ctx context.Context, client rueidis.Client, keys, args []string) ([]int64, error) {
	replies, err := b.script.Exec(ctx, client, keys, args).AsIntSlice()
	if err == nil && len(replies) != b.replies*len(keys) {
		return nil, fmt.Errorf("a script answered %d numbers for %d calls: %w", len(replies), len(keys), models.ErrUnavailable)
	}
	return replies, err
}
