package redis_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// spiedConn passes on what was written.
type spiedConn struct {
	net.Conn
	wrote func(b []byte)
}

func (c spiedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.wrote(b)
	return n, err
}

// A caller that leaves is let go at once, however long a call may take. What it sent is
// executed all the same, before what is called afterwards.
func TestCallerThatLeavesDoesNotWait(t *testing.T) {
	t.Parallel()
	const timeout = 30 * time.Second
	server := servicestest.StartRedis(t)
	ctx, cancel := context.WithCancel(t.Context())
	rdb := redistest.At(t, server.Addr, redis.Options{Timeout: timeout, Client: rueidis.ClientOption{
		DialCtxFn: func(ctx context.Context, addr string, dialer *net.Dialer, _ *tls.Config) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "tcp", addr)
			return spiedConn{conn, func(b []byte) {
				if bytes.Contains(b, []byte("abandoned")) {
					cancel()
				}
			}}, err
		},
	}})
	server.Freeze()
	thaw := sync.OnceFunc(server.Thaw)
	defer thaw()
	start := time.Now()
	_, err := rdb.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Incr().Key("abandoned").Build())
	})
	if took := time.Since(start); took > timeout/2 || !errors.Is(err, context.Canceled) || !errors.Is(err, models.ErrUnavailable) {
		t.Errorf("a caller that left was held for %v: %v", took, err)
	}
	thaw()
	got, err := rdb.Do(t.Context(), func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Get().Key("abandoned").Build())
	})
	if value, _ := got.ToString(); err != nil || value != "1" {
		t.Errorf("after the call that was left: %q, %v", value, err)
	}
}
