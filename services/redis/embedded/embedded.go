// Package embedded is a Redis server inside this process: miniredis, with a clock.
package embedded

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
)

// tick is how often the time of TTLs moves on: a key may live this much too long.
const tick = 20 * time.Millisecond

// Server is a Redis server inside this process, for development: there is nothing to install,
// no other process reaches it, and nothing is kept on exit. It knows neither CLIENT TRACKING
// nor CLUSTER.
type Server struct {
	server   *miniredis.Miniredis
	password string
	stop     chan struct{}
	stopped  chan struct{}
}

// Start listens on a free loopback port, behind a random password. Its error is that of the
// listener.
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

// ClientOption says how to reach the server; set redis.Options.Embedded with it.
func (e *Server) ClientOption() rueidis.ClientOption {
	return rueidis.ClientOption{InitAddress: []string{e.server.Addr()}, Password: e.password}
}

// age moves the time of TTLs on: miniredis does not do so by itself.
func (e *Server) age() {
	defer close(e.stopped)
	ticker := time.NewTicker(tick)
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
