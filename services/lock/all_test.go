package lock

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

func TestAll(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	a, b := openApart(t, server), openAt(t, server.Addr)
	// More of one shard than a chunk, of names whose order is not that of their ends.
	var want []string
	for i := 0; len(want) < allChunk+20; i++ {
		if resource := fmt.Sprintf("process:%06d", i); shardOf(resource) == 3 {
			want = append(want, resource)
			takeInRedis(t, b, requestFor(resource, alice, time.Hour-time.Duration(i)*time.Millisecond))
		}
	}
	takeInRedis(t, a.Locker, request("process:other", bob))
	want = append(want, "process:other")

	t.Run("lists each lock once, with its holder and its end", func(t *testing.T) {
		all, degraded, err := a.All(t.Context())
		if err != nil || degraded || len(all) != len(want) {
			t.Fatalf("%d of %d locks, degraded %t, %v", len(all), len(want), degraded, err)
		}
		for i, item := range all {
			if item.Resource != want[i] || item.Holder.Email == "" || item.Fence == nil {
				t.Fatalf("lock %d is %+v, want %s", i, item, want[i])
			}
			if apart := item.ExpiresAt.Sub(time.UnixMilli(item.End)); apart.Abs() > time.Minute {
				t.Fatalf("%s ends at %s and at %s", item.Resource, item.ExpiresAt, time.UnixMilli(item.End))
			}
		}
		again, _, err := b.All(t.Context())
		if err != nil || again[0].End != all[0].End {
			t.Errorf("the end moves from %d to %d, %v", all[0].End, again[0].End, err)
		}
	})

	t.Run("belongs to its caller", func(t *testing.T) {
		all, _, err := b.All(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		clear(all)
		if again, _, err := b.All(t.Context()); err != nil || again[0].Resource != want[0] {
			t.Errorf("the next one gets %+v, %v", again[0], err)
		}
	})

	t.Run("is of this instance without Redis", func(t *testing.T) {
		a.cut()
		all, degraded, err := a.All(t.Context())
		if err != nil || !degraded || len(all) != 1 || all[0].Resource != "process:other" || all[0].End == 0 {
			t.Errorf("%+v, degraded %t, %v", all, degraded, err)
		}
	})
}

// TestSharedLooks: calls that come while a look is under way share the next one, which begins
// after all of them.
func TestSharedLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := newLooks()
		var begun atomic.Int64
		read := func(context.Context) ([]Listed, error) {
			n := begun.Add(1)
			time.Sleep(time.Second)
			return []Listed{{End: n}}, nil
		}
		saw := make(chan int64, 20)
		join := func(ctx context.Context) {
			all, err := shared.join(ctx, read)
			if err != nil {
				saw <- -1
				return
			}
			saw <- all[0].End
		}
		go join(t.Context())
		synctest.Wait() // the first look has begun
		for range 10 {
			go join(t.Context())
		}
		impatient, leave := context.WithCancelCause(t.Context())
		go join(impatient)
		synctest.Wait()
		leave(errors.New("the client left"))
		if got := <-saw; got != -1 {
			t.Errorf("who left saw %d", got)
		}
		if got := <-saw; got != 1 {
			t.Errorf("the first saw look %d", got)
		}
		for range 10 {
			if got := <-saw; got != 2 {
				t.Errorf("one that came during the first look saw look %d", got)
			}
		}
		if got := begun.Load(); got != 2 {
			t.Errorf("%d looks", got)
		}
		_, err := shared.join(t.Context(), func(context.Context) ([]Listed, error) { return nil, models.ErrUnavailable })
		if !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("a look that failed: %v", err)
		}
	})
}
