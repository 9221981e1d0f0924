package session

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
)

// fakeLog is a revocation log in memory.
type fakeLog struct {
	mu      sync.Mutex
	entries []models.Revocation
	head    int64
	history int64 // another one after the database was restored
	err     error
	queries int
	delay   time.Duration // between the query's arrival and its answer
}

func (l *fakeLog) add(entries ...models.Revocation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range entries {
		l.head++
		r.Seq, r.Nonce, r.At = l.head, l.head+1000*l.history, time.Now()
		l.entries = append(l.entries, r)
	}
}

func (l *fakeLog) NoteChange(_ context.Context, hash string) error {
	l.add(models.Revocation{SessionHash: hash, Everybody: hash == ""})
	return nil
}

func (l *fakeLog) Revocations(ctx context.Context, after int64, since time.Time) (models.Revocations, error) {
	if ctx.Err() != nil {
		return models.Revocations{}, errors.Join(models.ErrUnavailable, context.Cause(ctx))
	}
	l.mu.Lock()
	l.queries++
	read, err, delay := models.Revocations{Head: l.head, Nonce: l.head + 1000*l.history}, l.err, l.delay
	for _, r := range l.entries {
		if r.Seq > after && !r.At.Before(since) {
			read.Entries = append(read.Entries, r)
		}
	}
	l.mu.Unlock()
	time.Sleep(delay)
	return read, err
}

func (l *fakeLog) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// restore keeps the first entry and adds others, of another history, up to head.
func (l *fakeLog) restore(head int64) {
	l.entries, l.head, l.history = l.entries[:1], head, 1
	for seq := int64(2); seq <= head; seq++ {
		l.entries = append(l.entries, models.Revocation{Seq: seq, Nonce: seq + 1000, At: time.Now(), UserID: "9"})
	}
}

func (l *fakeLog) asked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queries
}

var errLogGone = errors.Join(models.ErrUnavailable, errors.New("gone"))

// followerTest runs test with a follower that polls log in fake time.
func followerTest(t *testing.T, log *fakeLog, test func(t *testing.T, follower *logFollower)) {
	synctest.Test(t, func(t *testing.T) {
		follower := newLogFollower(log, slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		var task sync.WaitGroup
		task.Go(func() { follower.run(ctx) })
		synctest.Wait()
		test(t, follower)
		stop()
		task.Wait()
	})
}

// pass lets time pass and the follower do what it does then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// valid is about a copy made at that offset of the log's first history. The quick
// check says the same.
func valid(follower *logFollower, seq int64) bool {
	held, now := newCopy(models.Session{Hash: "hash", User: models.UserRef{ID: "1"}}, logOffset{seq, seq}, time.Time{}), time.Now()
	got := follower.trusted(now) && follower.valid(held.offset, "hash", "1")
	for range 2 { // the second time it remembers
		if follower.validates(held, now) != got {
			panic("it validates what is not valid, or not what is")
		}
	}
	return got
}

func held(follower *logFollower) (entries, indexed int) {
	follower.mu.RLock()
	defer follower.mu.RUnlock()
	return len(follower.entries), len(follower.last)
}
