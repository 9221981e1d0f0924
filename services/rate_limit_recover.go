package services

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/models"
)

const (
	// accountingPause is how long Redis, when it returns, is kept from the others
	// to account what was admitted without it; the rest follows meanwhile.
	accountingPause = 300 * time.Millisecond
	accountingTime  = 10 * time.Second
	accountingCalls = 16 // at once
)

// owedBook is what this instance admitted without Redis, to be told when it
// returns. It is bounded like limitTable; what does not fit stays untold.
type owedBook struct {
	maxKeys int
	some    atomic.Bool // there may be something
	busy    atomic.Bool // it is being told

	mu    sync.Mutex
	keys  map[placedKey]*owedState
	units int // entries in all logs
}

type owedState struct {
	policy models.Policy
	rule   rule
	log    slidingLog
	bucket bucket
	block  int64 // the id under which just this may be at Redis as a block, its reply lost; 0: it is not
}

// newOwedState is empty, for what an ask's policy counts.
func newOwedState(a *ask) *owedState {
	s := &owedState{}
	s.follow(a)
	return s
}

// follow takes over the policy as it is now.
func (s *owedState) follow(a *ask) {
	if s.policy, s.rule = a.hit.Policy, a.rule; a.leased() {
		s.rule.burst = 0 // blocks are counted like a log, whatever the algorithm
	}
}

// alike reports whether what both owe is counted in the same place and units.
func (s *owedState) alike(other *owedState) bool {
	return s.rule.window == other.rule.window && (s.rule.burst > 0) == (other.rule.burst > 0) && (s.policy.Lease > 0) == (other.policy.Lease > 0)
}

func newOwedBook(maxKeys int) *owedBook {
	return &owedBook{maxKeys: max(maxKeys, minKeys), keys: map[placedKey]*owedState{}}
}

// add notes an admission made here at a moment of the table's clock.
func (b *owedBook) add(tag string, a *ask, id, at int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := placedKey{tag, a.name}
	s := b.keys[key]
	if s == nil || s.policy != a.hit.Policy {
		if fresh := newOwedState(a); s == nil || !s.alike(fresh) {
			b.drop(key)
			s = fresh
			b.keys[key] = s
		}
		s.follow(a)
	}
	s.block = 0
	for old := range b.keys {
		if len(b.keys) <= b.maxKeys && b.units < entriesPerKey*b.maxKeys {
			break
		}
		if old != key {
			b.drop(old)
		}
	}
	b.some.Store(true)
	if s.rule.burst > 0 {
		s.bucket.add(at, s.rule, a.cost)
		return
	}
	before := len(s.log.entries)
	at = s.log.forget(at, s.rule.window)
	if last := len(s.log.entries) - 1; a.leased() && last >= 0 && at-s.log.entries[last].at < s.rule.window/128 {
		s.log.entries[last].cost += a.cost
		s.log.used += a.cost
	} else {
		s.log.add(at, id, a.cost)
	}
	b.units += len(s.log.entries) - before
}

// remove takes an admission back before it was told.
func (b *owedBook) remove(tag string, a *ask, id, at, now int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.keys[placedKey{tag, a.name}]
	if s == nil {
		return
	}
	if s.rule.burst > 0 {
		s.bucket.remove(now, s.rule, a.cost, at)
		return
	}
	before := len(s.log.entries)
	if a.leased() { // several are in one entry
		s.block = 0
		s.log.removeAt(at, a.cost)
	} else {
		s.log.remove(id)
	}
	b.units += len(s.log.entries) - before
}

// forget drops what is owed of a key.
func (b *owedBook) forget(key placedKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(key)
}

func (b *owedBook) drop(key placedKey) {
	if s := b.keys[key]; s != nil {
		b.units -= len(s.log.entries)
		delete(b.keys, key)
	}
}

// takeAll empties the book.
func (b *owedBook) takeAll() map[placedKey]*owedState {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.keys
	b.keys, b.units = map[placedKey]*owedState{}, 0
	b.some.Store(false)
	return all
}

// putBack returns what could not be told, unless there is more of that key since.
func (b *owedBook) putBack(all map[placedKey]*owedState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, s := range all {
		if newer := b.keys[key]; newer != nil {
			if newer.alike(s) {
				newer.log.entries = append(s.log.entries, newer.log.entries...)
				newer.log.used += s.log.used
				newer.bucket.add(s.bucket.last, s.rule, ceilDiv(s.bucket.level, s.rule.window))
				b.units += len(s.log.entries)
			}
			continue
		}
		b.keys[key] = s
		b.units += len(s.log.entries)
		b.some.Store(true)
	}
}

// recovered tells Redis, before it is used again, what was admitted without it.
func (l *RateLimiter) recovered(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, accountingPause)
	defer cancel()
	l.account(ctx)
}

// accountSoon tells Redis in the background what was admitted without it: after
// a single call that failed, Redis never counts as away.
func (l *RateLimiter) accountSoon() {
	if !l.owed.some.Load() || !l.owed.busy.CompareAndSwap(false, true) {
		return
	}
	started := l.goBackground(func() {
		defer l.owed.busy.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), accountingTime)
		defer cancel()
		l.account(ctx)
	})
	if !started {
		l.owed.busy.Store(false)
	}
}

// account tells Redis all that is owed, some keys at a time. It stops at the
// first error; what was not told stays owed.
func (l *RateLimiter) account(ctx context.Context) {
	all := l.owed.takeAll()
	untold := maps.Clone(all)
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(accountingCalls)
	for key, owed := range all {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := l.accountKey(ctx, key, owed); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			delete(untold, key)
			return nil
		})
	}
	_ = group.Wait()
	l.owed.putBack(untold)
}

func (l *RateLimiter) accountKey(ctx context.Context, key placedKey, s *owedState) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now, used := l.table.now(), s.log.used
	s.log.forget(now, s.rule.window)
	s.bucket = s.bucket.leaked(now, s.rule)
	if s.log.used == 0 && s.bucket.level == 0 {
		return nil
	}
	if s.policy.Lease > 0 {
		// A block that is over: it leaves a window from now, the limit notwithstanding. Redis takes one id once.
		if s.block == 0 || s.log.used != used {
			s.block = rand.Int64N(maxCallID) + 1
		}
		return l.runLease(ctx, key, s.block, []int64{1 << 50, s.rule.window, 0, s.log.used, 0}, nil).err
	}
	args := []string{strconv.FormatInt(s.rule.burst, 10), strconv.FormatInt(s.rule.limit, 10), strconv.FormatInt(s.rule.window, 10)}
	if s.rule.burst > 0 {
		args = append(args, strconv.FormatInt(s.bucket.level, 10))
	}
	for _, e := range s.log.entries {
		age, id := strconv.FormatInt(now-e.at, 10), strconv.FormatInt(e.id, 10)
		for range e.cost {
			args = append(args, age, id)
		}
	}
	a := ask{hit: models.Hit{Policy: s.policy}, name: key.name, rule: s.rule}
	if _, err := l.redis.Exec(ctx, l.scripts.account, []string{l.redisKey(key.tag, &a)}, args); err != nil {
		return fmt.Errorf("account %s: %w", s.policy.Name, err)
	}
	return nil
}
