package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// What a read costs, and what it does not.
func TestReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ann := w.signUp(t)

	t.Run("a session whose changes Redis reports needs no command and no query", func(t *testing.T) {
		i := w.one(t)
		token, _ := signIn(t, i, ann)
		if i.Warm("unknown") {
			t.Error("an unknown token is warm")
		}
		unlessLate(t, func() error {
			warmForLong(t, i, token)
			reads := i.db.reads.Load()
			w.server.Do("CONFIG", "RESETSTAT")
			for range 100 {
				mustGet(t, i, token)
			}
			time.Sleep(promised) // without reports it would be too old now
			for range 100 {
				mustGet(t, i, token)
			}
			stats := w.server.Do("INFO", "commandstats")
			if queries := i.db.reads.Load() - reads; strings.Contains(stats, "cmdstat_get:") || queries != 0 {
				return fmt.Errorf("%d queries, and Redis was asked for: %s", queries, stats)
			}
			return nil
		})
	})

	// With the database gone no copy counts: a 503 does not wait for a slow Redis before it waits
	// for the database.
	t.Run("without trust Redis is not asked", func(t *testing.T) {
		i := w.one(t)
		var tokens []string
		for range 20 {
			token, _ := signIn(t, i, ann)
			tokens = append(tokens, token)
		}
		i.db.gone.Store(true)
		servicestest.Within(t, promised, func() bool {
			_, err := i.Get(t.Context(), tokens[len(tokens)-1]) // the newest copy
			return errors.Is(err, models.ErrUnavailable)
		}, "a copy is trusted for ever")
		w.server.Do("CONFIG", "RESETSTAT")
		for _, token := range tokens {
			if _, err := i.Get(t.Context(), token); !errors.Is(err, models.ErrUnavailable) {
				t.Error(err)
			}
		}
		if stats := w.server.Do("INFO", "commandstats"); strings.Contains(stats, "cmdstat_get:") {
			t.Errorf("Redis was asked for copies that do not count: %s", stats)
		}
		i.db.gone.Store(false)
		mustGet(t, i, tokens[0])
	})
}

// One query serves all callers that ask before it is sent. If the first of them leaves, the
// others get the answer all the same. Those that ask after it was sent share one more.
func TestReadsAreShared(t *testing.T) {
	t.Parallel()
	inFakeTime(t, 2, session.Options{}, func(t *testing.T, all []instance) {
		a, b := all[0], all[1]
		token, s := signIn(t, a, ann)
		slow := func() { time.Sleep(100 * time.Millisecond) }
		b.db.afterRead.Store(&slow)
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := b.Get(ctx, token)
			left <- err
		}()
		pass(50 * time.Millisecond)
		const others = 49
		found := make(chan error, others)
		for range others {
			go func() {
				got, err := b.Get(t.Context(), token)
				if err == nil && got.ID != s.ID {
					err = errors.New("another session")
				}
				found <- err
			}()
		}
		pass(10 * time.Millisecond)
		leave()
		if err := <-left; !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("the caller that left: %v", err)
		}
		for range others {
			if err := <-found; err != nil {
				t.Error(err)
			}
		}
		if n := b.db.reads.Load(); n > 2 {
			t.Errorf("%d queries for %d that ask at once, want 2", n, 1+others)
		}
	})
}

// unlessLate repeats a round that fails because the machine was late: an instance that cannot read
// the log for more than a second reads rows instead.
func unlessLate(t *testing.T, round func() error) {
	t.Helper()
	servicestest.Eventually(t, func() bool {
		began := time.Now()
		err := round()
		if err != nil && servicestest.Slack(began) < time.Second {
			t.Fatal(err)
		}
		if err != nil {
			t.Logf("on a machine that is late: %v", err)
		}
		return err == nil
	}, "it fails in every round")
}
