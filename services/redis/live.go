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

// liveness knows whether the connection to the one server is up, so that a call
// cannot have to wait for dialling: rueidis dials within the call that finds the
// connection gone, and does not honour the call's ctx while it does. A connection
// of another purpose that is lost counts as well: the next call is then raced, no more.
type liveness struct {
	lost atomic.Uint64 // how many connections have been lost
	up   atomic.Uint64 // 1 + lost, as it was before the last call that succeeded
}

// now reports whether the connection that served last is still there.
func (l *liveness) now() bool { return l.up.Load() == l.lost.Load()+1 }

// served tells that a call that began when lost was so many has succeeded.
func (l *liveness) served(lost uint64) { l.up.Store(lost + 1) }

// watch lets connections tell when they are lost. Before each write they call yield.
func (l *liveness) watch(opt *rueidis.ClientOption, yield func()) {
	dial := opt.DialCtxFn
	if dial == nil {
		dial = dialTCP
	}
	opt.DialCtxFn = func(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
		conn, err := dial(ctx, addr, dialer, config)
		if err != nil {
			return nil, err
		}
		return &watchedConn{Conn: conn, yield: yield, lost: &l.lost}, nil
	}
}

// errHandshake is the end of a connection that was made, but not secured.
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

// watchedConn is lost when reading or writing fails, or when it is closed: rueidis
// learns it after us. One on which the server never answered is no loss: a frozen server
// takes connections, one after the other.
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
