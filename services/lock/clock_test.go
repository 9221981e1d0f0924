package lock

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// setClock is a wall clock that a test may set.
type setClock struct{ off atomic.Int64 }

func (c *setClock) set(off time.Duration) { c.off.Store(int64(off)) }
func (c *setClock) now() time.Time        { return time.Now().Add(time.Duration(c.off.Load())) }

// The wall clock of an instance fills in the times it answers, and the end of tokens, and nothing
// else.
func TestWallClock(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	for _, off := range []time.Duration{time.Hour, -time.Hour} {
		t.Run("makes no lease shorter or longer, put by "+off.String(), func(t *testing.T) {
			t.Parallel()
			clock := &setClock{}
			clock.set(off)
			l := at(t, server.Addr, patient, Options{Clock: clock.now})
			resource := off.String()
			taken := take(t, l, request(resource, alice))
			status, page := l.mustStatus(t, resource), listed(t, l, 10)
			for _, expires := range []time.Time{taken.ExpiresAt, status.ExpiresAt, page[0].ExpiresAt} {
				if d := expires.Sub(clock.now()); d < 0 || d > 90*time.Second {
					t.Errorf("it ends at %v, %v from the instance's clock", expires, d)
				}
			}
			giveBack(t, l, taken)
			const ttl = time.Second
			req := requestFor(resource, alice, ttl)
			keepsLease(t, req, func() error {
				clock.set(off)
				return l.WithLock(t.Context(), req, func(ctx context.Context, _ Lock) error {
					clock.set(-off) // two hours off, in the middle of the lease
					pause(ctx, ttl+100*time.Millisecond)
					return context.Cause(ctx)
				})
			})
		})
	}
	t.Run("ends tokens", func(t *testing.T) {
		clock := &setClock{}
		l := at(t, server.Addr, patient, Options{MaxHold: time.Hour, Clock: clock.now})
		signer, err := NewTokenSigner([]string{strings.Repeat("s", 32)})
		if err != nil {
			t.Fatal(err)
		}
		tokens := NewTokens(l, signer)
		token, err := tokens.Sign(take(t, l, request("r", alice)), "1", 0)
		if err != nil {
			t.Fatal(err)
		}
		for off, opens := range map[time.Duration]bool{0: true, -time.Hour: true, 50 * time.Minute: true, 61 * time.Minute: false} {
			clock.set(off)
			if _, _, err := tokens.Verify(t.Context(), "r", "1", token); (err == nil) != opens {
				t.Errorf("clock %v off: %v", off, err)
			}
		}
	})
}
