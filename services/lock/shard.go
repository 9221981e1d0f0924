package lock

import (
	"cmp"
	"hash/fnv"
	"strconv"
	"sync"
	"time"

	"gatehouse/services/redis"
)

// shardCount is how many hash tags the locks are spread over. All keys of a lock
// and its shard's index and fence are in one Cluster slot.
const shardCount = 16

func shardOf(resource string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(resource)) // never fails
	return int(h.Sum32() % shardCount)
}

// shardKeys are the keys of each shard, and the beginnings of the keys of its locks.
type shardKeys [shardCount]struct{ lock, queue, index, fence, forgot string }

func newShardKeys(rdb *redis.Client) *shardKeys {
	var keys shardKeys
	for shard := range keys {
		prefix := rdb.Key("{" + strconv.Itoa(shard) + "}")
		keys[shard].lock, keys[shard].queue, keys[shard].index = prefix+"lock:", prefix+"queue:", prefix+"locks"
		keys[shard].fence, keys[shard].forgot = prefix+"fence", prefix+"forgot"
	}
	return &keys
}

// of returns the keys of a resource's lock, of its queue, and of its shard's index, fence and
// forgot, as lua/common.lua describes them. Only acquire needs the last two.
func (k *shardKeys) of(resource string) []string { return k.in(shardOf(resource), resource) }

func (k *shardKeys) in(shard int, resource string) []string {
	s := &k[shard]
	return []string{s.lock + resource, s.queue + resource, s.index, s.fence, s.forgot}
}

// shardState is what this instance has observed of a shard.
type shardState struct {
	epoch    string // the last one, empty before the first
	queuedIn string // the one in which this instance's waiters queued
	watermark
	verified leaseSigns // as of which all leases held here were verified
}

// watermark is what an answered heartbeat of waiters proves: a grant with a higher fence
// in its epoch was made after heardAt, and lasts until the heartbeat is waiterAlive old.
type watermark struct {
	highestFence int64     // when the heartbeat was executed
	heardAt      time.Time // before it was sent; zero if nothing is proven
}

// leaseSigns call for a look at the leases of a shard when they change.
type leaseSigns struct {
	forced          string // how many locks were, as a heartbeat has answered
	lostConnections uint64 // before the heartbeat: behind a new one may be a replica that missed a write
}

// observe records the epoch of a reply. A shard without one has forgotten, this instance
// has not; a watermark holds for its epoch alone.
func (s *shardState) observe(epoch string) {
	if epoch != s.epoch {
		s.watermark = watermark{}
	}
	s.epoch = cmp.Or(epoch, s.epoch)
}

type shardStates struct {
	mu     sync.Mutex
	states [shardCount]shardState
}

func (s *shardStates) get(shard int) shardState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states[shard]
}

func (s *shardStates) change(shard int, change func(*shardState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.states[shard])
}

func (s *shardStates) observe(shard int, epoch string) {
	s.change(shard, func(state *shardState) { state.observe(epoch) })
}
