package lock

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// holdMany lets the instances hold so many locks of that name, over all shards but the one of
// except.
func holdMany(t *testing.T, all []*Locker, name string, locks int, except ...string) []Lock {
	t.Helper()
	var held []Lock
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(8)
	for i := range locks {
		req := Request{Resource: fmt.Sprint(name, ":", i), Holder: alice, TTL: 10 * time.Minute, Token: newToken()}
		if slices.ContainsFunc(except, func(resource string) bool { return shardOf(resource) == shardOf(req.Resource) }) {
			continue
		}
		group.Go(func() error {
			for {
				taken, err := all[i%len(all)].TryAcquire(t.Context(), req)
				if errors.Is(err, models.ErrUnavailable) { // a busy machine
					pause(t.Context(), 10*time.Millisecond)
					continue
				}
				mu.Lock()
				defer mu.Unlock()
				held = append(held, taken)
				if err == nil && taken.Degraded {
					return errors.New("not granted by Redis")
				}
				return err
			}
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return held
}

// stillHeld are how many of the locks have their holder, as Redis answers any instance.
func stillHeld(t *testing.T, l *Locker, held []Lock) (found int) {
	t.Helper()
	grants := map[string]string{}
	for page := (models.Page{Limit: 200}); ; {
		locks, degraded, err := l.List(t.Context(), page)
		if err != nil || degraded {
			return 0
		}
		for _, taken := range locks.Items {
			grants[taken.Resource] = taken.Grant
		}
		if locks.NextCursor == nil {
			break
		}
		page.Cursor = *locks.NextCursor
	}
	for _, taken := range held {
		if grants[taken.Resource] == taken.Grant {
			found++
		}
	}
	return found
}

// giveBackMany wants every one of the locks to be its holder's, and ends it.
func giveBackMany(t *testing.T, all []*Locker, held []Lock) {
	t.Helper()
	for i, taken := range held {
		l := all[i%len(all)]
		servicestest.Eventually(t, func() bool {
			_, err := l.Check(t.Context(), taken.Claim)
			if errors.Is(err, models.ErrNotHeld) {
				t.Fatalf("%s is not its holder's: %v", taken.Resource, err)
			}
			return err == nil
		}, taken.Resource+" cannot be asked about")
		servicestest.Eventually(t, func() bool {
			_, err := l.Release(t.Context(), taken.Claim)
			return err == nil || errors.Is(err, models.ErrNotHeld) // done, and only the reply was lost
		}, taken.Resource+" cannot be given back")
	}
}
