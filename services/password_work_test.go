package services

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
)

// An unknown user costs the same work as a wrong password and as the right one:
// one derivation with the same parameters. Work is counted, not timed: a clock on
// a busy machine proves nothing.
func TestSignInWorkIsTheSameForUnknownUsers(t *testing.T) {
	p := cheapPasswords()
	hash, err := p.Hash(t.Context(), "correct horse battery")
	if err != nil {
		t.Fatal(err)
	}
	var work []string
	p.derive = func(password, salt []byte, passes, memory uint32, threads uint8, keyLen uint32) []byte {
		work = append(work, fmt.Sprint(len(salt), passes, memory, threads, keyLen))
		return deriveCheaply(password, salt, passes, memory, threads, keyLen)
	}
	for _, try := range []struct{ name, password, hash string }{
		{"right", "correct horse battery", hash}, {"wrong", "wrong", hash}, {"unknown", "wrong", ""}, {"unknown, the decoy's key", "", ""},
	} {
		work = nil
		if right, err := p.Matches(t.Context(), try.password, try.hash); err != nil || right != (try.name == "right") {
			t.Errorf("%s: %v, %v", try.name, right, err)
		}
		if want := fmt.Sprint(argonSalt, argonTime, argonMemory, argonThreads, argonKey); len(work) != 1 || work[0] != want {
			t.Errorf("%s: work %v, want %s once", try.name, work, want)
		}
	}
}

// A flood of sign-ins computes no more than half of the cores' worth at once, and
// who gives up waiting costs nothing.
func TestPasswordWorkIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPasswords()
		var now, most, total atomic.Int64
		p.derive = func(_, _ []byte, _, _ uint32, _ uint8, keyLen uint32) []byte {
			n := now.Add(1)
			for {
				seen := most.Load()
				if n <= seen || most.CompareAndSwap(seen, n) {
					break
				}
			}
			time.Sleep(50 * time.Millisecond)
			now.Add(-1)
			total.Add(1)
			return make([]byte, keyLen)
		}
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() {
				if _, err := p.Matches(t.Context(), "x", ""); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most.Load() != passwordSlots() || total.Load() != 40 {
			t.Errorf("%d at once, of %d allowed; %d in all", most.Load(), passwordSlots(), total.Load())
		}
	})
}

// In a flood each call returns within the wait for a slot and the work of one password: with a
// result, or with an error, at once if the queue is full.
func TestPasswordFloodIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, work = 1000, 50 * time.Millisecond
		p := NewPasswords()
		p.derive = func(_, _ []byte, _, _ uint32, _ uint8, keyLen uint32) []byte {
			time.Sleep(work)
			return make([]byte, keyLen)
		}
		flood, began := int(passwordSlots())*callers, time.Now()
		var served, atOnce atomic.Int64
		var wg sync.WaitGroup
		for range flood {
			wg.Go(func() {
				_, err := p.Matches(t.Context(), "x", "")
				took := time.Since(began)
				switch {
				case err == nil:
					served.Add(1)
				case !errors.Is(err, models.ErrUnavailable):
					t.Error(err)
				case took == 0:
					atOnce.Add(1)
				}
				if took > passwordWait+work {
					t.Errorf("answered after %v", took)
				}
			})
		}
		wg.Wait()
		slots := int(passwordSlots())
		if got, want := int(served.Load()), slots*int(passwordWait/work); got < want {
			t.Errorf("%d served, want %d", got, want)
		}
		if got, want := int(atOnce.Load()), flood-slots-slots*passwordQueue; got != want {
			t.Errorf("%d refused at once, want %d", got, want)
		}
		if _, err := p.Hash(t.Context(), "x"); err != nil {
			t.Errorf("after the flood: %v", err)
		}
	})
}

func TestPasswords(t *testing.T) {
	p := NewPasswords()
	matches := func(password, hash string) bool {
		t.Helper()
		right, err := p.Matches(t.Context(), password, hash)
		if err != nil {
			t.Error(err)
		}
		return right
	}
	t.Run("a hash is of argon2id, with the parameters of OWASP", func(t *testing.T) {
		hash, err := p.Hash(t.Context(), "correct horse battery")
		if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") || !matches("correct horse battery", hash) {
			t.Errorf("%q, %v", hash, err)
		}
	})
	t.Run("a hash of the reference implementation matches its password only", func(t *testing.T) {
		const hash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
		for try, want := range map[string]bool{"password": true, "": false, "password ": false, "Password": false} {
			if got := matches(try, hash); got != want {
				t.Errorf("%q: %v", try, got)
			}
		}
	})
}

// The memory of passwords is given back once none was worked on for a while, and not before.
func TestPasswordMemoryIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var freed atomic.Int64
		p := NewPasswords()
		p.derive = deriveCheaply
		p.restWith(func() { freed.Add(1) })
		after := func(d time.Duration, want int64) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got := freed.Load(); got != want {
				t.Errorf("given back %d times, want %d", got, want)
			}
		}
		after(2*passwordRest, 0) // there was no work
		for range 3 {
			if _, err := p.Hash(t.Context(), "x"); err != nil {
				t.Error(err)
			}
			after(passwordRest-1, 0)
		}
		after(1, 1)
		after(10*passwordRest, 1)
	})
}
