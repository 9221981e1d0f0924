package lock

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// Fences grow in each shard, whatever the server's clock says: each is above all that were given
// or reserved before. The highest stands an hour ahead of the clock here, or a clock that only
// moves on would pass for that.
func TestFences(t *testing.T) {
	t.Parallel()
	const resource, block = "r", 1_000_000_000
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		l := New(rdb, Options{})
		keys := l.keys.of(resource)
		do := func(t *testing.T, script string, args ...string) string {
			t.Helper()
			msg, err := rdb.Exec(t.Context(), rueidis.NewLuaScript(script), keys, args)
			if err != nil {
				t.Fatal(err)
			}
			text, err := msg.ToString()
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		highest := func(t *testing.T) int64 {
			t.Helper()
			fence, _, ok := readShard(do(t, `return redis.call('GET', KEYS[4])`))
			if !ok {
				t.Fatal("the shard has no highest fence")
			}
			return fence
		}
		newAttempt := func() *attempt {
			a := l.newAttempt(request(resource, alice))
			a.block = block
			return a
		}
		// taken is what the acquire script granted.
		taken := func(t *testing.T, a *attempt) (fence int64) {
			t.Helper()
			got, err := l.runAcquire(t.Context(), a, false)
			if err != nil || got.code != codeDone {
				t.Fatalf("%+v, %v", got, err)
			}
			return got.fence
		}
		extended := func(t *testing.T, claim Claim) (first int64) {
			t.Helper()
			got, err := l.run(t.Context(), l.scripts.extend, resource, credential(claim), "60000", "renew", strconv.Itoa(block))
			if err != nil || got.code != codeDone {
				t.Fatalf("%+v, %v", got, err)
			}
			first, err = strconv.ParseInt(got.extra, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return first
		}
		free := func(t *testing.T) {
			t.Helper()
			if _, err := l.ForceRelease(t.Context(), resource, nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, row := range []struct {
			name string
			take func(t *testing.T) (fence int64)
		}{
			{"of a free lock", func(t *testing.T) int64 { return taken(t, newAttempt()) }},
			{"of a free lock in a shard that is kept for holders", func(t *testing.T) int64 {
				do(t, `redis.call('SET', KEYS[5], '1', 'PX', 600000); return ''`)
				a := newAttempt()
				a.reasserts = &entry{origin: originLocal, lock: Lock{grantedAt: time.Now()}}
				return taken(t, a)
			}},
			{"of a lock handed to a waiter", func(t *testing.T) int64 {
				held, waiter := newAttempt(), newAttempt()
				taken(t, held)
				got, err := l.runAcquire(t.Context(), waiter, true)
				if err != nil || got.code != codeRefused {
					t.Fatalf("%+v, %v", got, err)
				}
				// Its instance is alive, however busy the machine is.
				do(t, `redis.call('ZADD', string.sub(KEYS[3], 1, -6) .. 'instances', '99999999999999', ARGV[1]); return ''`, l.instance)
				before := highest(t)
				free(t)
				if s := l.mustStatus(t, resource); s.Grant == waiter.grant && *s.Fence > before {
					return *s.Fence
				}
				t.Fatal("not handed over, or not under a higher fence")
				return 0
			}},
			{"that an extend reserves", func(t *testing.T) int64 {
				a := newAttempt()
				before := taken(t, a) + block - 1
				fence := extended(t, a.claim())
				if fence <= before {
					t.Errorf("reserved from %d on, and up to %d before", fence, before)
				}
				return fence
			}},
		} {
			t.Run(row.name, func(t *testing.T) {
				t.Cleanup(func() { _, _ = l.ForceRelease(context.Background(), resource, nil) }) // of a test that failed
				giveBack(t, l, take(t, l, request(resource, alice)))                             // the shard has an epoch, or the shortcut would not serve
				ahead := time.Now().Add(time.Hour).UnixMicro()
				do(t, `redis.call('SETRANGE', KEYS[4], 0, ARGV[1]); return ''`, strconv.FormatInt(ahead, 10))
				fence := row.take(t)
				if fence <= ahead {
					t.Errorf("fence %d after %d", fence, ahead)
				}
				if last := highest(t); last < fence+block-1 {
					t.Errorf("%d to %d are reserved, and the highest is said to be %d", fence, fence+block-1, last)
				}
				free(t)
				do(t, `redis.call('DEL', KEYS[5]); return ''`)
				next := take(t, l, request(resource, models.Holder{}))
				if *next.Fence < fence+block {
					t.Errorf("fence %d, which is reserved for another holder: %d to %d", *next.Fence, fence, fence+block-1)
				}
				giveBack(t, l, next)
			})
		}
		t.Run("of a free lock, reserved from the clock on", func(t *testing.T) {
			// The shortcut's own way: the clock is ahead of the highest.
			do(t, `redis.call('SETRANGE', KEYS[4], 0, '0000000000000001'); return ''`)
			fence := taken(t, newAttempt())
			if off := time.Since(time.UnixMicro(fence)).Abs(); off > time.Hour {
				t.Errorf("fence %d is %v off the clock", fence, off)
			}
			if last := highest(t); last != fence+block-1 {
				t.Errorf("%d to %d are reserved, and the highest is said to be %d", fence, fence+block-1, last)
			}
			free(t)
		})
	})
}
