// Package embedded is a Redis server inside this process: miniredis, with a clock.
package embedded

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
)

// embeddedTick is how often the embedded server's TTLs move on: a key may live
// this much too long.
const embeddedTick = 20 * time.Millisecond

// Server is a Redis server inside this process, for development: nothing
// to install, nothing shared with other processes, nothing kept on exit.
type Server struct {
	server   *miniredis.Miniredis
	password string
	stop     chan struct{}
	stopped  chan struct{}
}

// Start listens on a free loopback port behind a random password.
func Start() (*Server, error) {
	e := &Server{
		server:   miniredis.NewMiniRedis(),
		password: rand.Text(),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	e.server.RequireAuth(e.password)
	if err := e.server.Start(); err != nil {
		return nil, fmt.Errorf("start embedded redis: %w", err)
	}
	go e.age()
	return e, nil
}

// ClientOption says how to reach the server.
func (e *Server) ClientOption() rueidis.ClientOption {
	return rueidis.ClientOption{InitAddress: []string{e.server.Addr()}, Password: e.password}
}

// age lets the keys grow old: the library's clock for TTLs stands still by itself.
func (e *Server) age() {
	defer close(e.stopped)
	ticker := time.NewTicker(embeddedTick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ticker.C:
			now := time.Now()
			e.server.FastForward(now.Sub(last))
			last = now
		case <-e.stop:
			return
		}
	}
}

// Close ends the server. Call it once.
func (e *Server) Close() {
	close(e.stop)
	<-e.stopped
	e.server.Close()
}
