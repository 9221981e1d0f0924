package redis

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	"github.com/redis/rueidis"
)

// A frozen server, or a proxy before nothing, accepts connections again and again: only the
// end of a connection on which it answered counts as lost, and counts once.
func TestConnectionThatNeverServedIsNoLoss(t *testing.T) {
	t.Parallel()
	var state connState
	var server net.Conn
	opt := rueidis.ClientOption{DialCtxFn: func(context.Context, string, *net.Dialer, *tls.Config) (client net.Conn, _ error) {
		client, server = net.Pipe()
		return client, nil
	}}
	state.watch(&opt, func() {})
	for _, answers := range []bool{false, true} {
		before := state.lost.Load()
		conn, err := opt.DialCtxFn(t.Context(), "", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if answers {
			go func() { _, _ = server.Write([]byte("+")) }()
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		_ = server.Close()
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Fatal("a closed connection is read")
		}
		_ = conn.Close()
		if lost := state.lost.Load() != before; lost != answers {
			t.Errorf("answered %t, lost %t", answers, lost)
		}
		if state.lost.Load() > before+1 {
			t.Error("lost twice")
		}
	}
}
