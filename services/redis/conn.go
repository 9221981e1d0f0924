package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/redis/rueidis"
)

// connState knows whether the connection to the one server is up. rueidis dials within the
// call that finds the connection gone, and does not honour the call's ctx meanwhile; so a call
// is only trusted to return in time while the connection is up. The loss of a connection with
// another purpose counts as well: the next call then costs a goroutine, no more.
type connState struct {
	lost   atomic.Uint64 // connections lost since the start
	served atomic.Uint64 // 1 + lost, as it was before the last call that succeeded
}

// up reports whether the connection that served last is still there.
func (s *connState) up() bool { return s.served.Load() == s.lost.Load()+1 }

// succeeded records a call that succeeded and began when so many connections had been lost.
func (s *connState) succeeded(lost uint64) { s.served.Store(lost + 1) }

// watch counts the connections of opt that are lost. They call yield before each write.
func (s *connState) watch(opt *rueidis.ClientOption, yield func()) {
	dial := opt.DialCtxFn
	if dial == nil {
		dial = dialTCP
	}
	opt.DialCtxFn = func(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
		conn, err := dial(ctx, addr, dialer, config)
		if err != nil {
			return nil, err
		}
		return &watchedConn{Conn: conn, yield: yield, lost: &s.lost}, nil
	}
}

// errHandshake wraps the error of a connection that was made, but not secured.
var errHandshake = errors.New("tls: handshake")

func dialTCP(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialer.Timeout)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil || config == nil {
		return conn, err
	}
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName, _, _ = net.SplitHostPort(addr)
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%w: %w", errHandshake, err)
	}
	return secure, nil
}

// watchedConn is lost when reading or writing fails, or when it is closed; it counts that
// before rueidis learns of it. A connection on which the server never answered does not count:
// a frozen server accepts connections, one after the other.
type watchedConn struct {
	net.Conn
	yield  func()
	lost   *atomic.Uint64
	served atomic.Bool
}

func (c *watchedConn) lose() {
	if c.served.Swap(false) {
		c.lost.Add(1)
	}
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	switch {
	case err != nil:
		c.lose()
	case !c.served.Load():
		c.served.Store(true)
	}
	return n, err
}

func (c *watchedConn) Write(b []byte) (int, error) {
	c.yield()
	n, err := c.Conn.Write(b)
	if err != nil {
		c.lose()
	}
	return n, err
}

func (c *watchedConn) Close() error {
	c.lose()
	return c.Conn.Close()
}
