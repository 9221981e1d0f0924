package servicestest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy stands between one client and a server, so that a test can cut that
// client off alone. It ends with the test.
type Proxy struct {
	Addr string

	t      testing.TB
	target string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]struct{}
}

// NewProxy passes connections on to target.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{t: t, target: target, Addr: FreeAddr(t), conns: map[net.Conn]struct{}{}}
	p.Restore()
	t.Cleanup(p.Cut)
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
	for conn := range p.conns {
		_ = conn.Close()
	}
	clear(p.conns)
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

func (p *Proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		if p.listener != l {
			_, _ = client.Close(), server.Close()
		} else {
			p.conns[client], p.conns[server] = struct{}{}, struct{}{}
			go pass(client, server)
			go pass(server, client)
		}
		p.mu.Unlock()
	}
}

func pass(from, to net.Conn) {
	_, _ = io.Copy(to, from) // either side may end it
	_ = from.Close()
	_ = to.Close()
}
