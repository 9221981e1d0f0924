package app

import (
	"container/list"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// connections is a listener that keeps at most max connections open, so that the process
// never runs out of files. For a new one beyond that it closes the connection that has
// been without a request for longest; if each has one under way, or had a moment ago, the
// new one waits. net/http itself would accept for ever.
type connections struct {
	net.Listener
	max   int
	grace time.Duration // in which a connection without a request is not closed: one may be on its way
	log   *slog.Logger

	mu     sync.Mutex
	open   map[net.Conn]*list.Element // nil while a request is under way
	quiet  *list.List                 // of quietConn: no request is under way; the longest first
	warned time.Time

	roomMade  chan struct{} // has a value when there may be room again
	closed    chan struct{}
	closeOnce sync.Once
}

type quietConn struct {
	net.Conn
	since time.Time
}

const (
	connectionGrace = 250 * time.Millisecond
	fullWarnings    = time.Minute // between two log lines that say that max is reached
)

func newConnections(l net.Listener, most int, log *slog.Logger) *connections {
	return &connections{
		Listener: l, max: most, grace: connectionGrace, log: log, open: map[net.Conn]*list.Element{}, quiet: list.New(),
		roomMade: make(chan struct{}, 1), closed: make(chan struct{}),
	}
}

func (c *connections) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	for {
		added, again := c.add(conn, time.Now())
		if added {
			return conn, nil
		}
		select {
		case <-c.roomMade:
		case <-again:
		case <-c.closed:
			_ = conn.Close()
			return nil, net.ErrClosed
		}
	}
}

// add reports whether there was room for conn, or could be made. If not, again has a value
// when it is time to look again.
func (c *connections) add(conn net.Conn, now time.Time) (added bool, again <-chan time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) >= c.max {
		if now.Sub(c.warned) >= fullWarnings {
			c.warned = now
			c.log.Warn("as many connections are open as the limit of open files allows: those without a request are closed, "+
				"and new ones wait for the end of a request; raise the limit (ulimit -n)", "connections", c.max)
		}
		if left := c.closeLongest(now); left > 0 {
			return false, time.After(left)
		}
	}
	c.open[conn] = c.quiet.PushBack(quietConn{conn, now})
	return true, nil
}

// closeLongest closes the connection that has been without a request for longest, or
// returns when to try again. c.mu is held.
func (c *connections) closeLongest(now time.Time) (again time.Duration) {
	for at := c.quiet.Front(); at != nil; at = at.Next() {
		longest := at.Value.(quietConn)
		if left := c.grace - now.Sub(longest.since); left > 0 {
			return left
		}
		if hasUnread(longest.Conn) {
			continue
		}
		c.quiet.Remove(at)
		delete(c.open, longest.Conn)
		_ = longest.Close()
		return 0
	}
	return connectionGrace
}

// follow is for http.Server.ConnState.
func (c *connections) follow(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.open[conn]
	if !ok {
		return // closed to make room
	}
	if at != nil && state != http.StateNew {
		c.quiet.Remove(at)
		c.open[conn] = nil
	}
	switch state {
	case http.StateNew, http.StateActive:
		return
	case http.StateIdle:
		c.open[conn] = c.quiet.PushBack(quietConn{conn, time.Now()})
	case http.StateHijacked, http.StateClosed:
		delete(c.open, conn)
	}
	select {
	case c.roomMade <- struct{}{}:
	default:
	}
}

// busy reports whether a request is under way, from when it has been read to the last
// byte of its answer.
func (c *connections) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open) > c.quiet.Len()
}

func (c *connections) Close() error {
	c.closeOnce.Do(func() { close(c.closed) })
	return c.Listener.Close()
}

// connectionsFor is how many connections fit into a limit of open files. The rest, at
// least a quarter, is for the database, which may use maxConns connections (0: few),
// for Redis and for everything else.
func connectionsFor(files, maxConns int) int {
	const (
		own        = 48 // with the databases' own defaults
		perConn    = 3  // SQLite opens as many files
		fewestOpen = 16
	)
	return max(fewestOpen, files-max(files/4, own+perConn*maxConns))
}

// unknownFileLimit is the usual limit where none can be asked for.
const unknownFileLimit = 1024
