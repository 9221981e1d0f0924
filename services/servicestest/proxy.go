package servicestest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy stands between one client and a server, so that a test can harm that
// client's connection alone. It ends with the test.
type Proxy struct {
	Addr string

	t testing.TB

	mu       sync.Mutex
	target   string
	changed  *sync.Cond // of stalled, stuck and conns
	stalled  bool       // all connections, also new ones
	stuck    map[net.Conn]bool
	latency  time.Duration
	lose     int
	listener net.Listener
	conns    map[net.Conn]struct{}
}

// NewProxy returns a Proxy that passes connections on to target, a host:port.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{t: t, target: target, Addr: FreeAddr(t), conns: map[net.Conn]struct{}{}, stuck: map[net.Conn]bool{}}
	p.changed = sync.NewCond(&p.mu)
	p.Restore()
	t.Cleanup(func() {
		p.Resume()
		p.Cut()
	})
	return p
}

// Cut closes every connection and refuses new ones.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	p.resetLocked()
}

// Reset closes every connection, so that their ends see RST, and takes new ones.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resetLocked()
}

func (p *Proxy) resetLocked() {
	for conn := range p.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	clear(p.conns)
	clear(p.stuck)
	p.changed.Broadcast()
}

// Restore accepts connections again.
func (p *Proxy) Restore() {
	p.t.Helper()
	l, err := net.Listen("tcp", p.Addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener = l
	go p.accept(l)
}

// Retarget closes every connection and passes new ones on to another server.
func (p *Proxy) Retarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
	p.resetLocked()
}

// Stall lets nothing pass in either direction. Nothing is closed and new
// connections are accepted, as when the network drops every packet.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalled = true
}

// StallOpen is Stall for the connections that are open now; new ones work.
func (p *Proxy) StallOpen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		p.stuck[conn] = true
	}
}

// Resume ends Stall and StallOpen: what was on its way arrives late.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalled = false
	clear(p.stuck)
	p.changed.Broadcast()
}

// SetLatency makes each direction take that much longer.
func (p *Proxy) SetLatency(each time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency = each
}

// LoseReplies closes a connection in place of each of the next n replies: the server has
// executed the command, and its client does not learn that.
func (p *Proxy) LoseReplies(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose = n
}

func (p *Proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target := p.target
		p.mu.Unlock()
		server, err := net.Dial("tcp", target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		if p.listener != l || p.target != target {
			_, _ = client.Close(), server.Close()
		} else {
			p.conns[client], p.conns[server] = struct{}{}, struct{}{}
			go p.pass(client, server, false)
			go p.pass(server, client, true)
		}
		p.mu.Unlock()
	}
}

type packet struct {
	data []byte
	due  time.Time
}

// pass carries one direction until either side ends it.
func (p *Proxy) pass(from, to net.Conn, replies bool) {
	queue := make(chan packet, 1024)
	go func() {
		defer close(queue)
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				queue <- packet{append([]byte(nil), buf[:n]...), time.Now().Add(p.delay())}
			}
			if err != nil {
				return
			}
		}
	}()
	for packet := range queue {
		time.Sleep(time.Until(packet.due))
		if !p.mayPass(to, replies) {
			break
		}
		if _, err := to.Write(packet.data); err != nil {
			break
		}
	}
	_, _ = from.Close(), to.Close()
	for range queue { // so that the reader ends
		continue
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, from)
	delete(p.conns, to)
}

func (p *Proxy) delay() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latency
}

// mayPass waits while the proxy is stalled.
func (p *Proxy) mayPass(to net.Conn, replies bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.stalled || p.stuck[to] {
		if _, open := p.conns[to]; !open {
			return false
		}
		p.changed.Wait()
	}
	if replies && p.lose > 0 {
		p.lose--
		return false
	}
	return true
}
