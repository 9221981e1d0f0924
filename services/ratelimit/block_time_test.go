package ratelimit

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// slowConn lets the limiter's clock pass while a script is on its way.
type slowConn struct {
	net.Conn
	clock, way *atomic.Int64 // microseconds
}

func (c slowConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("EVAL")) {
		c.clock.Add(c.way.Swap(0))
	}
	return c.Conn.Write(b)
}

// A block is used until its end, counted from before the call for it was sent, less a drift. At
// that moment it is not used any more, and never if the answer comes later.
func TestBlockEndsFromBeforeTheSend(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	policy := blockPolicy(100, 5, time.Minute)
	length := blockLength(policy.Window.Microseconds())
	usable := length - length/100 - blockDrift
	for _, row := range []struct {
		name     string
		way      int64 // there and back
		at       int64 // the clock at the next hit, from before the send
		requests int   // scripts for that one
		error    bool
	}{
		{"at hand to the last", length / 2, usable - 1, 0, false},
		{"over", length / 2, usable, 1, false},
		{"an answer in the last moment", usable - 1, usable - 1, 0, false},
		{"a late answer", usable, usable, 1, true},
		{"a very late answer", 2 * length, 2 * length, 1, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			hit := models.Hit{Policy: policy, Key: strings.ReplaceAll(row.name, " ", "-")}
			var clock, way atomic.Int64
			start := time.Now()
			dial := rueidis.ClientOption{DialCtxFn: func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
				conn, err := d.DialContext(ctx, "tcp", addr)
				return slowConn{conn, &clock, &way}, err
			}}
			rdb := redistest.At(t, server.Addr, redis.Options{Client: dial})
			l := New(rdb, Options{Clock: func() time.Time { return start.Add(time.Duration(clock.Load()) * time.Microsecond) }})
			take(t, l, hit) // a block of one; the next is of two
			way.Store(row.way)
			_, err := l.Take(t.Context(), "group", hit)
			if errors.Is(err, models.ErrUnavailable) != row.error || err != nil && !row.error {
				t.Fatal(err)
			}
			if row.error {
				if s := l.blocks.keys[taggedKey{hit.Key, policyKey{"leased", hit.Key}}]; len(s.returned) != 1 || s.returned[0].units != 2 || s.returned[0].used != 0 {
					t.Errorf("what came too late is not owed: %+v", s)
				}
			}
			clock.Store(row.at)
			before := scriptsRun(t, server)
			if d := take(t, l, hit)[0]; !d.Allowed || d.Degraded {
				t.Errorf("%+v", d)
			}
			if asked := scriptsRun(t, server) - before; asked != row.requests {
				t.Errorf("%d scripts, want %d", asked, row.requests)
			}
		})
	}
}
