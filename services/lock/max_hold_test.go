package lock

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// A lock that is extended in time is held for hours, with one token, and ends at MaxHold.
func TestHeldForHours(t *testing.T) {
	t.Parallel()
	const (
		most  = 12 * time.Hour
		lease = time.Hour
		step  = 50 * time.Minute
	)
	t.Run("without Redis", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			rdb := redistest.Start(t, redis.Options{Disabled: true})
			if err := rdb.Close(t.Context()); err != nil { // or heartbeats would fill the hours
				t.Fatal(err)
			}
			l := New(rdb, Options{OnRedisDown: models.OnRedisDownOpen, MaxHold: most})
			signer, err := NewTokenSigner([]string{strings.Repeat("s", 32)})
			if err != nil {
				t.Fatal(err)
			}
			tokens, began := NewTokens(l, signer), time.Now()
			taken := take(t, l, requestFor("r", alice, lease))
			token, err := tokens.Sign(taken, alice.UserID, 0)
			if err != nil {
				t.Fatal(err)
			}
			for held := step; held < most; held += step {
				time.Sleep(time.Until(began.Add(held)))
				if _, _, err := tokens.Verify(t.Context(), "r", alice.UserID, token); err != nil {
					t.Fatalf("after %v: %v", held, err)
				}
				if extended := extend(t, l, taken, lease); extended.TTL != min(lease, most-held) {
					t.Fatalf("after %v extended for %v", held, extended.TTL)
				}
			}
			time.Sleep(time.Until(began.Add(most)))
			if _, _, err := tokens.Verify(t.Context(), "r", alice.UserID, token); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("the token after %v: %v", most, err)
			}
			if _, err := l.Extend(t.Context(), taken.Claim, lease); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("extended after %v: %v", most, err)
			}
			wantFree(t, l, "r")
		})
	})
	t.Run("in Redis", func(t *testing.T) {
		server := servicestest.StartRedis(t)
		rdb := redistest.New(t, server.Addr)
		taken := take(t, New(rdb, Options{MaxHold: most}), requestFor("r", alice, lease))
		for held := step; held < most+step; held += step {
			// Another instance each time: one that knows of the lock knows since when.
			l := New(rdb, Options{MaxHold: most})
			older(t, server, l, "r", step)
			extended, err := l.Extend(t.Context(), taken.Claim, lease)
			switch {
			case held >= most:
				if !errors.Is(err, models.ErrNotHeld) {
					t.Errorf("extended after %v: %v", held, err)
				}
				wantFree(t, l, "r")
			case err != nil:
				t.Fatalf("after %v: %v", held, err)
			case extended.TTL > min(lease, most-held) || extended.TTL < min(lease, most-held)-time.Minute:
				t.Errorf("after %v extended for %v", held, extended.TTL)
			}
		}
	})
}

// older makes a lock in Redis one that was granted so much earlier, as if the time had passed.
func older(t *testing.T, server *servicestest.RedisServer, l *Locker, resource string, by time.Duration) {
	t.Helper()
	const move = `local text = redis.call('GET', KEYS[1])
		local flag, fence, since, rest = string.match(text, '^([+*]?)(' .. string.rep('%d', 16) .. ')(' .. string.rep('%d', 13) .. ')(.*)$')
		local was, is = fence .. since .. rest, fence .. string.format('%d', since - ARGV[1]) .. rest
		redis.call('SET', KEYS[1], flag .. is, 'KEEPTTL')
		return redis.call('ZADD', KEYS[2], redis.call('ZSCORE', KEYS[2], was), is) + redis.call('ZREM', KEYS[2], was)`
	keys := l.keys.of(resource)
	if n := server.Do("EVAL", move, "2", keys[0], keys[2], milliseconds(by)); n != "2" {
		t.Fatalf("the lock is not older: %s", n)
	}
}
