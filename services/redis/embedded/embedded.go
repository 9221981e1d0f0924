// Package embedded is a Redis server inside this process: miniredis, with a clock.
package embedded

import (
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/rueidis"
)

// tick is how often the time of TTLs moves on: a key may live this much too long.
const tick = 20 * time.Millisecond

// grain is what a key may live too short: miniredis takes the time that passed off every key, also
// off one that was written meanwhile. A lock's holder allows for 2 ms. To move the time on costs a
// walk over all keys, so it is done 1,000 times a second at most. With many keys it takes no more
// than a fifth of the time: a key may then live up to a tick too short. So may one, by any time,
// whose command a busy machine lets wait between its coming and its execution.
const grain = time.Millisecond

// Server is a Redis server inside this process, for development: there is nothing to install,
// no other process reaches it, and nothing is kept on exit. It knows neither CLIENT TRACKING
// nor CLUSTER.
type Server struct {
	server   *miniredis.Miniredis
	password string
	now      func() time.Time
	clients  sync.Map // *server.Peer
	stop     chan struct{}
	stopped  chan struct{}

	mu    sync.Mutex
	moved time.Time     // until when the time of TTLs has moved on
	cost  time.Duration // of the walk that moved it
}

// Start listens on a free loopback port, behind a random password. Its error is that of the
// listener.
func Start() (*Server, error) { return start(tick, time.Now) }

func start(tick time.Duration, now func() time.Time) (*Server, error) {
	e := &Server{
		server:   miniredis.NewMiniRedis(),
		password: rand.Text(),
		now:      now,
		moved:    now(),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	e.server.RequireAuth(e.password)
	if err := e.server.Start(); err != nil {
		return nil, fmt.Errorf("start embedded redis: %w", err)
	}
	e.server.Server().SetPreHook(e.beforeCommand)
	go e.age(tick)
	return e, nil
}

// ClientOption says how to reach the server; set redis.Options.Embedded with it.
func (e *Server) ClientOption() rueidis.ClientOption {
	return rueidis.ClientOption{InitAddress: []string{e.server.Addr()}, Password: e.password}
}

// age moves the time of TTLs on where no command does: miniredis does not do so by itself.
func (e *Server) age(tick time.Duration) {
	defer close(e.stopped)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			e.moveOn()
		case <-e.stop:
			return
		}
	}
}

// beforeCommand moves the time on before a client's command is executed, so that what it writes
// does not lose the time before it, however late the tick is. A script's own commands come here,
// too, while the server is locked: they are not a client's, because only a client signs in.
func (e *Server) beforeCommand(from *server.Peer, command string, _ ...string) bool {
	if command == "HELLO" || command == "AUTH" {
		if _, known := e.clients.LoadOrStore(from, true); !known {
			from.OnDisconnect(func() { e.clients.Delete(from) })
		}
		return false
	}
	if _, client := e.clients.Load(from); client {
		e.moveOn()
	}
	return false // the command is yet to be executed
}

func (e *Server) moveOn() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	if passed := now.Sub(e.moved); passed >= max(grain, min(4*e.cost, tick)) {
		e.server.FastForward(passed)
		e.moved, e.cost = now, e.now().Sub(now)
	}
}

// Close ends the server. Call it once.
func (e *Server) Close() {
	close(e.stop)
	<-e.stopped
	e.server.Close()
}
