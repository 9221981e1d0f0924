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
		r.Seq, r.Mark, r.At = l.head, l.head+1000*l.history, time.Now()
		l.entries = append(l.entries, r)
	}
}

func (l *fakeLog) answer(from func(models.Revocation) bool) (models.RevocationTail, error) {
	l.mu.Lock()
	l.queries++
	tail, err, delay := models.RevocationTail{Head: l.head, Mark: l.head + 1000*l.history}, l.err, l.delay
	for _, r := range l.entries {
		if from(r) {
			tail.Entries = append(tail.Entries, r)
		}
	}
	l.mu.Unlock()
	time.Sleep(delay)
	if err != nil {
		return models.RevocationTail{}, err
	}
	return tail, nil
}

func (l *fakeLog) NoteChange(_ context.Context, hash string) error {
	l.add(models.Revocation{SessionHash: hash, Everybody: hash == ""})
	return nil
}

func (l *fakeLog) Revocations(_ context.Context, after int64, since time.Time) (models.RevocationTail, error) {
	return l.answer(func(r models.Revocation) bool { return r.Seq > after && !r.At.Before(since) })
}

func (l *fakeLog) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

func (l *fakeLog) asked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queries
}

var errLogGone = errors.Join(models.ErrUnavailable, errors.New("gone"))

// tailTest runs test with a tail that polls log in fake time.
func tailTest(t *testing.T, log *fakeLog, test func(t *testing.T, tail *revocationTail)) {
	synctest.Test(t, func(t *testing.T) {
		tail := newRevocationTail(log, slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		var task sync.WaitGroup
		task.Go(func() { tail.run(ctx) })
		synctest.Wait()
		test(t, tail)
		stop()
		task.Wait()
	})
}

// counts is about a copy made at that position of the log's first history. What
// is asked for quickly is the same.
func counts(tail *revocationTail, seq int64) bool {
	known := sessionCopy{Position: logPosition{seq, seq}, Session: models.Session{Hash: "hash", User: models.UserRef{ID: "1"}}}
	held, now := newHeldCopy(known), time.Now()
	got := tail.counts(known.Position, known.Hash, known.User.ID, now)
	for range 2 { // the second time it remembers
		if tail.vouches(held, now) != got {
			panic("it vouches for what does not count, or not for what does")
		}
	}
	return got
}

func held(tail *revocationTail) (entries, indexed int) {
	tail.mu.RLock()
	defer tail.mu.RUnlock()
	return len(tail.entries), len(tail.bySession) + len(tail.byUser)
}

func TestTailEntriesEndCopiesMadeBefore(t *testing.T) {
	for name, entry := range map[string]models.Revocation{
		"session":   {SessionHash: "hash"},
		"user":      {UserID: "1"},
		"everybody": {Everybody: true},
	} {
		t.Run(name, func(t *testing.T) {
			log := &fakeLog{}
			tailTest(t, log, func(t *testing.T, tail *revocationTail) {
				log.add(models.Revocation{SessionHash: "other"}, models.Revocation{UserID: "2"})
				time.Sleep(tailInterval)
				synctest.Wait()
				pos, ok := tail.position()
				before := pos.seq
				if before != 2 || !ok || !counts(tail, 0) || !counts(tail, before) {
					t.Fatalf("position %d; others' entries ended a copy", before)
				}
				log.add(entry)
				if !counts(tail, before) {
					t.Error("ended before it is known")
				}
				tail.poke()
				synctest.Wait()
				if counts(tail, before) || counts(tail, 0) {
					t.Error("a copy made before the entry counts")
				}
				if now, _ := tail.position(); !counts(tail, now.seq) {
					t.Error("a copy made after the entry does not count")
				}
				if counts(tail, 4) {
					t.Error("a copy from the future counts")
				}
			})
		})
	}
}

// Trust lasts 2 s from before the query was sent, however late its answer.
func TestTailTrust(t *testing.T) {
	log := &fakeLog{}
	tailTest(t, log, func(t *testing.T, tail *revocationTail) {
		log.set(func() { log.err = errLogGone })
		time.Sleep(tailTrust - time.Millisecond)
		synctest.Wait()
		if !counts(tail, 0) {
			t.Error("not trusted just before 2 s")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if counts(tail, 0) {
			t.Error("trusted after 2 s")
		}
		log.set(func() { log.err, log.delay = nil, 1500*time.Millisecond })
		time.Sleep(tailInterval + log.delay) // sent at 3 s, answered at 4.5 s, until 5 s
		synctest.Wait()
		if !counts(tail, 0) {
			t.Error("not trusted after an answer")
		}
		log.set(func() { log.err = errLogGone })
		time.Sleep(600 * time.Millisecond)
		if counts(tail, 0) {
			t.Error("the time that the answer took was not counted")
		}
	})
}

func TestTailNeverLoadedVouchesForNothing(t *testing.T) {
	tailTest(t, &fakeLog{err: errLogGone}, func(t *testing.T, tail *revocationTail) {
		if _, ok := tail.position(); ok || counts(tail, 0) {
			t.Error("it vouches for a copy")
		}
	})
}

func TestTailCatchUp(t *testing.T) {
	log := &fakeLog{}
	tailTest(t, log, func(t *testing.T, tail *revocationTail) {
		log.add(models.Revocation{UserID: "1"})
		if err := tail.catchUp(t.Context()); err != nil || counts(tail, 0) {
			t.Errorf("%v, or the copy still counts", err)
		}
		// Polls that were sent before the commit prove nothing about it: one that is
		// under way when the catching up fails does not bring trust back.
		log.set(func() { log.delay = 500 * time.Millisecond })
		time.Sleep(tailInterval)
		synctest.Wait() // a poll is under way
		log.add(models.Revocation{UserID: "1"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := tail.catchUp(ctx); !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("err = %v", err)
		}
		time.Sleep(log.delay)
		synctest.Wait()
		if counts(tail, 1) {
			t.Error("trusted again by a query sent before the revoke was committed")
		}
		time.Sleep(tailInterval)
		synctest.Wait()
		if counts(tail, 1) || !counts(tail, 2) {
			t.Error("a later poll did not settle it")
		}
	})
}

// Callers who wait for the same poll share it.
func TestTailCatchUpIsShared(t *testing.T) {
	log := &fakeLog{delay: 100 * time.Millisecond}
	tailTest(t, log, func(t *testing.T, tail *revocationTail) {
		time.Sleep(2 * log.delay)
		synctest.Wait()
		before := log.asked()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if err := tail.catchUp(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := log.asked() - before; n > 2 {
			t.Errorf("%d queries for 50 callers", n)
		}
	})
}

func TestTailDropsCopiesWhenTheLogIsNotWhatItWas(t *testing.T) {
	for name, change := range map[string]func(*fakeLog){
		"restored": func(l *fakeLog) { l.entries, l.head, l.history = l.entries[:1], 1, 1 },
		"restored, and as far as it was": func(l *fakeLog) {
			l.entries, l.head, l.history = l.entries[:1], 3, 1
			for seq := range int64(2) {
				l.entries = append(l.entries, models.Revocation{Seq: 2 + seq, Mark: 1002 + seq, At: time.Now(), UserID: "9"})
			}
		},
		"restored, and farther": func(l *fakeLog) {
			l.entries, l.head, l.history = l.entries[:1], 6, 1
			for seq := range int64(5) {
				l.entries = append(l.entries, models.Revocation{Seq: 2 + seq, Mark: 1002 + seq, At: time.Now(), UserID: "9"})
			}
		},
		"cleaned past cursor":  func(l *fakeLog) { l.entries, l.head = nil, 9 },
		"gap after the cursor": func(l *fakeLog) { l.entries, l.head = []models.Revocation{{Seq: 9, At: time.Now(), UserID: "3"}}, 9 },
	} {
		t.Run(name, func(t *testing.T) {
			log := &fakeLog{}
			log.add(models.Revocation{UserID: "8"}, models.Revocation{UserID: "9"}, models.Revocation{UserID: "8"})
			tailTest(t, log, func(t *testing.T, tail *revocationTail) {
				if !counts(tail, 0) || !counts(tail, 3) {
					t.Fatal("copies do not count to begin with")
				}
				log.set(func() { change(log) })
				time.Sleep(tailInterval)
				synctest.Wait()
				if now, _ := tail.position(); counts(tail, 3) || !tail.counts(now, "hash", "1", time.Now()) || now.seq != log.head {
					t.Errorf("position %d: an old copy counts, or a new one does not", now.seq)
				}
				if log.history > 0 && (counts(tail, 1) || counts(tail, 0)) {
					t.Error("a copy from before the database was restored counts: its row may be gone")
				}
			})
		})
	}
}

func TestTailForgets(t *testing.T) {
	log := &fakeLog{}
	log.add(models.Revocation{SessionHash: "a"}, models.Revocation{UserID: "2"})
	tailTest(t, log, func(t *testing.T, tail *revocationTail) {
		time.Sleep(tailHeld / 2)
		log.add(models.Revocation{SessionHash: "b"})
		time.Sleep(tailHeld/2 + 2*tailInterval)
		synctest.Wait()
		if counts(tail, 1) || !counts(tail, 2) || !counts(tail, 3) {
			t.Error("copies older than what is held must not count, others must")
		}
		if entries, indexed := held(tail); entries != 1 || indexed != 1 {
			t.Errorf("%d entries held, %d indexed", entries, indexed)
		}
		time.Sleep(tailHeld)
		synctest.Wait()
		if entries, _ := held(tail); entries != 0 || !counts(tail, 3) {
			pos, _ := tail.position()
			t.Errorf("a quiet log: position %d", pos.seq)
		}
	})
}

func TestTailBoundsItsMemory(t *testing.T) {
	log := &fakeLog{}
	for range tailMaxHeld + 10 {
		log.add(models.Revocation{UserID: "2"})
	}
	tailTest(t, log, func(t *testing.T, tail *revocationTail) {
		if entries, _ := held(tail); entries != tailMaxHeld || counts(tail, 9) || !counts(tail, 10) {
			t.Errorf("%d entries held", entries)
		}
	})
}
