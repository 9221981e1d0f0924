package session

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
)

func TestLogEntriesEndCopiesMadeBefore(t *testing.T) {
	for name, entry := range map[string]models.Revocation{
		"session":   {SessionHash: "hash"},
		"user":      {UserID: "1"},
		"everybody": {Everybody: true},
	} {
		t.Run(name, func(t *testing.T) {
			log := &fakeLog{}
			followerTest(t, log, func(t *testing.T, follower *logFollower) {
				log.add(models.Revocation{SessionHash: "other"}, models.Revocation{UserID: "2"})
				pass(logInterval)
				pos, ok := follower.offset()
				before := pos.seq
				if before != 2 || !ok || !valid(follower, 0) || !valid(follower, before) {
					t.Fatalf("offset %d; others' entries ended a copy", before)
				}
				log.add(entry)
				if !valid(follower, before) {
					t.Error("ended before it is known")
				}
				follower.wake()
				synctest.Wait()
				if valid(follower, before) || valid(follower, 0) {
					t.Error("a copy made before the entry counts")
				}
				if now, _ := follower.offset(); !valid(follower, now.seq) {
					t.Error("a copy made after the entry does not count")
				}
				if valid(follower, 4) {
					t.Error("a copy from the future counts")
				}
			})
		})
	}
}

// Trust lasts 2 s from before the query was sent, however late its answer.
func TestLogFollowerTrust(t *testing.T) {
	log := &fakeLog{}
	followerTest(t, log, func(t *testing.T, follower *logFollower) {
		log.set(func() { log.err = errLogGone })
		pass(logTrust - time.Millisecond)
		if !valid(follower, 0) {
			t.Error("not trusted just before 2 s")
		}
		pass(time.Millisecond)
		if valid(follower, 0) {
			t.Error("trusted after 2 s")
		}
		log.set(func() { log.err, log.delay = nil, 1500*time.Millisecond })
		pass(logInterval + log.delay) // sent at 3 s, answered at 4.5 s, until 5 s
		if !valid(follower, 0) {
			t.Error("not trusted after an answer")
		}
		log.set(func() { log.err = errLogGone })
		time.Sleep(600 * time.Millisecond)
		if valid(follower, 0) {
			t.Error("the time that the answer took was not counted")
		}
	})
}

func TestLogFollowerNeverLoadedValidatesNothing(t *testing.T) {
	followerTest(t, &fakeLog{err: errLogGone}, func(t *testing.T, follower *logFollower) {
		if _, ok := follower.offset(); ok || valid(follower, 0) {
			t.Error("it validates a copy")
		}
	})
}

func TestLogFollowerSync(t *testing.T) {
	log := &fakeLog{}
	followerTest(t, log, func(t *testing.T, follower *logFollower) {
		log.add(models.Revocation{UserID: "1"})
		if err := follower.sync(t.Context()); err != nil || valid(follower, 0) {
			t.Errorf("%v, or the copy still counts", err)
		}
		// Polls that were sent before the commit prove nothing about it: one that is
		// under way when a sync fails does not bring trust back.
		log.set(func() { log.delay = 500 * time.Millisecond })
		pass(logInterval) // a poll is under way
		log.add(models.Revocation{UserID: "1"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := follower.sync(ctx); !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("err = %v", err)
		}
		pass(log.delay)
		if valid(follower, 1) {
			t.Error("trusted again by a query sent before the revoke was committed")
		}
		pass(logInterval)
		if valid(follower, 1) || !valid(follower, 2) {
			t.Error("a later poll did not settle it")
		}
	})
}

// A caller whose time is over leaves the instance without copies only until the log is read again,
// which is at once.
func TestLogFollowerReadsAgainAfterSyncFails(t *testing.T) {
	log := &fakeLog{}
	followerTest(t, log, func(t *testing.T, follower *logFollower) {
		pass(logInterval / 2)
		late, cancel := context.WithCancel(t.Context())
		cancel()
		before := log.asked()
		if err := follower.sync(late); !errors.Is(err, models.ErrUnavailable) {
			t.Fatalf("err = %v", err)
		}
		synctest.Wait() // no time passes
		if asked := log.asked() - before; asked != 1 || !valid(follower, 0) {
			t.Errorf("the log was asked %d times, copies count: %t", asked, valid(follower, 0))
		}
	})
}

// Callers that wait for the same poll share it.
func TestLogFollowerSyncIsShared(t *testing.T) {
	log := &fakeLog{delay: 100 * time.Millisecond}
	followerTest(t, log, func(t *testing.T, follower *logFollower) {
		pass(2 * log.delay)
		before := log.asked()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if err := follower.sync(t.Context()); err != nil {
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

func TestLogIsNotWhatItWas(t *testing.T) {
	for name, change := range map[string]func(*fakeLog){
		"restored":                       func(l *fakeLog) { l.restore(1) },
		"restored, and as far as it was": func(l *fakeLog) { l.restore(3) },
		"restored, and farther":          func(l *fakeLog) { l.restore(6) },
		"cleaned past cursor":            func(l *fakeLog) { l.entries, l.head = nil, 9 },
		"gap after the cursor":           func(l *fakeLog) { l.entries, l.head = []models.Revocation{{Seq: 9, At: time.Now(), UserID: "3"}}, 9 },
	} {
		t.Run(name, func(t *testing.T) {
			log := &fakeLog{}
			log.add(models.Revocation{UserID: "8"}, models.Revocation{UserID: "9"}, models.Revocation{UserID: "8"})
			followerTest(t, log, func(t *testing.T, follower *logFollower) {
				if !valid(follower, 0) || !valid(follower, 3) {
					t.Fatal("copies are not valid to begin with")
				}
				log.set(func() { change(log) })
				pass(logInterval)
				if now, _ := follower.offset(); valid(follower, 3) || !follower.valid(now, "hash", "1") || now.seq != log.head {
					t.Errorf("offset %d: an old copy counts, or a new one does not", now.seq)
				}
				if log.history > 0 && (valid(follower, 1) || valid(follower, 0)) {
					t.Error("a copy from before the database was restored counts: its row may be gone")
				}
			})
		})
	}
}

// A copy carries the nonce of the entry that it was made at. A log with another history gives the
// same number another nonce.
func TestLogCopiesOfAnotherHistory(t *testing.T) {
	log := &fakeLog{}
	log.add(models.Revocation{UserID: "8"}, models.Revocation{UserID: "9"})
	followerTest(t, log, func(t *testing.T, follower *logFollower) {
		log.add(models.Revocation{UserID: "8"})
		pass(logInterval)
		for seq := range int64(4) {
			if ours := (logOffset{seq, seq}); !follower.valid(ours, "hash", "1") {
				t.Errorf("a copy made at %v is not valid", ours)
			}
			if other := (logOffset{seq, 1000 + seq}); follower.valid(other, "hash", "1") {
				t.Errorf("a copy made at %v, in another history, is valid", other)
			}
		}
	})
}

func TestLogFollowerForgets(t *testing.T) {
	log := &fakeLog{}
	log.add(models.Revocation{SessionHash: "a"}, models.Revocation{UserID: "2"})
	followerTest(t, log, func(t *testing.T, follower *logFollower) {
		time.Sleep(logHeld / 2)
		log.add(models.Revocation{SessionHash: "b"})
		pass(logHeld/2 + 2*logInterval)
		if valid(follower, 1) || !valid(follower, 2) || !valid(follower, 3) {
			t.Error("copies older than what is held must not count, others must")
		}
		if entries, indexed := held(follower); entries != 1 || indexed != 1 {
			t.Errorf("%d entries held, %d indexed", entries, indexed)
		}
		pass(logHeld)
		if entries, _ := held(follower); entries != 0 || !valid(follower, 3) {
			pos, _ := follower.offset()
			t.Errorf("a quiet log: offset %d", pos.seq)
		}
	})
}

func TestLogFollowerBoundsItsMemory(t *testing.T) {
	read := models.Revocations{Head: logMaxHeld + 10, Nonce: logMaxHeld + 10}
	for seq := range read.Head {
		read.Entries = append(read.Entries, models.Revocation{Seq: seq + 1, Nonce: seq + 1, UserID: "2"})
	}
	synctest.Test(t, func(t *testing.T) {
		follower := newLogFollower(nil, nil)
		follower.apply(read, time.Now(), true)
		if entries, _ := held(follower); entries != logMaxHeld || valid(follower, 9) || !valid(follower, 10) {
			t.Errorf("%d entries held", entries)
		}
	})
}
