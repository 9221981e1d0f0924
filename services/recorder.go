package services

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"gatehouse/internal/require"
	"gatehouse/models"
)

// RecordStore is the database's side of a Recorder; *store.Store is one.
type RecordStore interface {
	AddRefusals(ctx context.Context, refusals []models.Refusal) error
	Refusal(ctx context.Context, userID, requestID string, since time.Time) (models.Refusal, error)
	Version(ctx context.Context, processID string, version int64) (models.Process, error)
	lockEndWriter
}

const (
	recordDelay = 500 * time.Millisecond // rows that come in the meantime are written together
	recordRoom  = 1000                   // rows of a kind that may wait
	recordBatch = 200                    // rows of one transaction
)

// Recorder writes rows that no request waits for, in batches, at most about a second late. Rows
// that the database cannot take, and those for which there is no room, are dropped: they only
// explain what has happened. A log line says how many. It is safe for concurrent use; Close ends
// it. It does not use Redis.
type Recorder struct {
	store    RecordStore
	log      *slog.Logger
	refusals recordQueue[models.Refusal]
	ends     recordQueue[models.EndedLock]

	wake    chan struct{}      // there are rows
	flushes chan chan struct{} // closed when the rows before are written
	stop    chan struct{}
	stopped sync.Once
	done    chan struct{}
}

// NewRecorder starts a Recorder. It panics without a store: that is a mistake in the program. A nil
// log is slog.Default.
func NewRecorder(store RecordStore, log *slog.Logger) *Recorder {
	require.Must("services.NewRecorder", require.Argument{Name: "RecordStore", Value: store})
	if log == nil {
		log = slog.Default()
	}
	r := &Recorder{
		store: store, log: log,
		wake: make(chan struct{}, 1), flushes: make(chan chan struct{}), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go r.run()
	return r
}

// Close writes what waits, and ends the recorder. If ctx ends first, Close returns its cause. What is
// recorded afterwards is lost.
func (r *Recorder) Close(ctx context.Context) error {
	r.stopped.Do(func() { close(r.stop) })
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Flush writes what waits now, for a caller that is going to read it. It returns earlier if ctx ends.
func (r *Recorder) Flush(ctx context.Context) {
	written := make(chan struct{})
	select {
	case r.flushes <- written:
	case <-r.done:
		return
	case <-ctx.Done():
		return
	}
	select {
	case <-written:
	case <-ctx.Done():
	}
}

func (r *Recorder) run() {
	defer close(r.done)
	var due <-chan time.Time
	for {
		var written chan struct{}
		select {
		case <-r.wake:
			if due == nil {
				due = time.After(recordDelay)
			}
			continue
		case <-due:
		case written = <-r.flushes:
		case <-r.stop:
			r.write()
			return
		}
		due = nil
		r.write()
		if written != nil {
			close(written)
		}
	}
}

// added wakes the recorder.
func (r *Recorder) added() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// write stores what waits. The timeout of the store bounds it.
func (r *Recorder) write() {
	dropped, err := r.refusals.write(r.store.AddRefusals)
	r.tell("refusals", dropped, err)
	dropped, err = r.ends.write(func(ctx context.Context, ends []models.EndedLock) error { return r.store.AddLockEnds(ctx, ends...) })
	r.tell("ends of locks", dropped, err)
}

// LockEnded records how a lock ended, for who held it.
func (r *Recorder) LockEnded(ended models.EndedLock) {
	r.ends.add(ended)
	r.added()
}

func (r *Recorder) tell(kind string, dropped int, err error) {
	if dropped > 0 {
		r.log.Warn("rows that explain what happened were not written", "kind", kind, "dropped", dropped, "error", err)
	}
}

// recordQueue is rows of one kind that wait.
type recordQueue[T any] struct {
	mu      sync.Mutex
	waiting []T
	dropped int // since the last write
}

// add lets a row wait, if there is room.
func (q *recordQueue[T]) add(row T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= recordRoom {
		q.dropped++
		return
	}
	q.waiting = append(q.waiting, row)
}

// write stores the rows that wait, and returns how many were dropped since the last time. After a
// failure it drops the rest: the next rows wait already.
func (q *recordQueue[T]) write(store func(ctx context.Context, rows []T) error) (dropped int, err error) {
	q.mu.Lock()
	waiting, dropped := q.waiting, q.dropped
	q.waiting, q.dropped = nil, 0
	q.mu.Unlock()
	for batch := range slices.Chunk(waiting, recordBatch) {
		if err == nil {
			err = store(context.Background(), batch)
		}
		if err != nil {
			dropped += len(batch)
		}
	}
	return dropped, err
}
