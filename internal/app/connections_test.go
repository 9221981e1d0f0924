package app

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// crowded is a server with room for few connections. A request for /held is under way
// until release has a value for it.
type crowded struct {
	*connections
	log     *servicestest.LogLines
	held    chan struct{} // has a value for each request for /held
	release chan struct{}
}

func newCrowded(t *testing.T, most int, grace time.Duration) *crowded {
	t.Helper()
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := &servicestest.LogLines{}
	c := &crowded{newConnections(inner, most, slog.New(slog.NewTextHandler(log, nil))), log, make(chan struct{}, 100), make(chan struct{})}
	c.grace = grace
	server := &http.Server{
		ConnState:         c.follow,
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/held" {
				c.held <- struct{}{}
				<-c.release
				w.Header().Set("Connection", "close")
			}
		}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(c)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return c
}

type testConn struct {
	net.Conn
	t *testing.T
}

func (c *crowded) dial(t *testing.T) testConn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", c.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return testConn{conn, t}
}

func (c testConn) send(path string) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		c.t.Fatal(err)
	}
}

func (c testConn) answered() {
	c.t.Helper()
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		c.t.Fatalf("%q %v", line, err)
	}
}

// closed waits until the server has closed the connection, accepted or not.
func (c testConn) closed() {
	c.t.Helper()
	if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Fatalf("not closed: %v", err)
	}
}

func (c *crowded) count() (open, quiet int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open), c.quiet.Len()
}

func (c *crowded) eventually(t *testing.T, open, quiet int) {
	t.Helper()
	servicestest.Eventually(t, func() bool {
		nowOpen, nowQuiet := c.count()
		return nowOpen == open && nowQuiet == quiet
	}, fmt.Sprintf("not %d connections, %d of them quiet", open, quiet))
}

func TestConnectionsAreClosedTheLongestQuietFirst(t *testing.T) {
	t.Parallel()
	c := newCrowded(t, 4, 0)
	silent, idle := c.dial(t), c.dial(t)
	c.eventually(t, 2, 2)
	idle.send("/")
	idle.answered()
	c.eventually(t, 2, 2) // it is without a request only a moment after its answer
	busy := c.dial(t)
	busy.send("/held")
	<-c.held
	later := c.dial(t)
	c.eventually(t, 4, 3)
	if said := c.log.String(); said != "" {
		t.Errorf("logged: %s", said)
	}
	for _, next := range []testConn{silent, idle, later} {
		fresh := c.dial(t)
		next.closed()
		fresh.send("/")
		fresh.answered()
	}
	if said := c.log.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "ulimit") {
		t.Errorf("logged, want one line: %s", said)
	}
	close(c.release)
	busy.answered() // a request under way is never cut off
	c.eventually(t, 3, 3)
}

func TestConnectionWaitsForTheEndOfARequest(t *testing.T) {
	t.Parallel()
	c := newCrowded(t, 2, time.Hour)
	for range 2 {
		c.dial(t).send("/held")
		<-c.held
	}
	if !c.busy() {
		t.Error("nothing under way")
	}
	var late []testConn
	for range 20 {
		conn := c.dial(t)
		conn.send("/")
		late = append(late, conn)
	}
	c.release <- struct{}{}
	for _, conn := range late { // one after the other, as there is room for one
		conn.answered()
		_ = conn.Close()
	}
	c.eventually(t, 1, 0) // the other that is held
	c.release <- struct{}{}
	c.eventually(t, 0, 0)
	if c.busy() {
		t.Error("something under way")
	}
}

// A connection whose request may still be on its way is not closed.
func TestConnectionHasTimeForItsFirstRequest(t *testing.T) {
	const grace = 50 * time.Millisecond
	c := newCrowded(t, 1, grace)
	start := time.Now()
	silent := c.dial(t)
	c.eventually(t, 1, 1)
	fresh := c.dial(t)
	fresh.send("/")
	silent.closed()
	if took := time.Since(start); took < grace {
		t.Errorf("closed after %v", took)
	}
	fresh.answered()
}

func TestConnectionThatWaitsEndsWithTheListener(t *testing.T) {
	t.Parallel()
	c := newCrowded(t, 1, 0)
	held := c.dial(t)
	held.send("/held")
	<-c.held
	waiting := c.dial(t)
	_ = c.Close()
	waiting.closed()
	close(c.release)
	held.answered()
}

func TestConnectionsFor(t *testing.T) {
	for _, row := range []struct{ files, maxConns, want int }{
		{128, 0, 80}, {256, 0, 192}, {1024, 0, 768}, {1024, 100, 676}, {1 << 20, 0, 3 << 18}, {64, 0, 16}, {0, 0, 16},
	} {
		if got := connectionsFor(row.files, row.maxConns); got != row.want {
			t.Errorf("connectionsFor(%d, %d) = %d, want %d", row.files, row.maxConns, got, row.want)
		}
	}
	if fileLimit() < 64 {
		t.Errorf("a limit of %d files", fileLimit())
	}
}

// A request that has arrived is seen before the server has read it.
func TestUnreadRequestKeepsItsConnection(t *testing.T) {
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := newConnections(inner, 1, slog.New(slog.DiscardHandler))
	c.grace = 0
	t.Cleanup(func() { _ = c.Close() })
	near, err := new(net.Dialer).DialContext(t.Context(), "tcp", c.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := c.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if hasUnread(far) {
		t.Error("unread bytes where nothing was sent")
	}
	if _, err := near.Write([]byte("GET /")); err != nil {
		t.Fatal(err)
	}
	servicestest.Eventually(t, func() bool { return hasUnread(far) }, "what was sent is not seen")
	if again := c.closeLongest(time.Now()); again <= 0 {
		t.Error("a connection with a request on it was closed")
	}
	if _, err := io.ReadFull(far, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if again := c.closeLongest(time.Now()); again > 0 {
		t.Error("a connection without a request was not closed")
	}
}
