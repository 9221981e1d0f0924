// Package redistest makes the clients that tests need. Every client is closed when its test
// ends.
package redistest

import (
	"cmp"
	"context"
	"log/slog"
	"testing"
	"time"

	"gatehouse/services/redis"
	"gatehouse/services/redis/embedded"
	"gatehouse/services/servicestest"
)

// Quiet is a log that goes nowhere.
func Quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// patience is a Timeout for tests that are about answers, not about time.
const patience = 5 * time.Second

// Start returns a client that need not be connected yet. A nil Logger is Quiet, and a zero Timeout
// 5 s.
func Start(t testing.TB, opt redis.Options) *redis.Client {
	t.Helper()
	if opt.Logger == nil {
		opt.Logger = Quiet()
	}
	opt.Timeout = cmp.Or(opt.Timeout, patience)
	rdb := redis.New(opt)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), servicestest.Patience)
		defer cancel()
		if err := rdb.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return rdb
}

// Impatient returns a client that is connected to addr and notices soon that Redis is away: its
// Timeout is the default of the product, which a busy machine may outlast, too.
func Impatient(t testing.TB, addr string) *redis.Client {
	t.Helper()
	return At(t, addr, redis.Options{Timeout: 100 * time.Millisecond})
}

// New returns a client that is connected to addr.
func New(t testing.TB, addr string) *redis.Client {
	t.Helper()
	return At(t, addr, redis.Options{})
}

// At is New with what else opt says. The keys begin with "test:".
func At(t testing.TB, addr string, opt redis.Options) *redis.Client {
	t.Helper()
	opt.Client.InitAddress, opt.KeyPrefix = []string{addr}, "test:"
	rdb := Start(t, opt)
	WaitReady(t, rdb)
	return rdb
}

// WaitReady waits until the client is connected.
func WaitReady(t testing.TB, rdb *redis.Client) {
	t.Helper()
	servicestest.Eventually(t, rdb.Available, "Redis did not become available")
}

// Of returns a patient client of a new server: a real one, or where backend is "embedded" the
// one inside the process.
func Of(t testing.TB, backend string) *redis.Client {
	t.Helper()
	if backend != "embedded" {
		return New(t, servicestest.StartRedis(t).Addr)
	}
	server, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	// With the race detector its scripts take long, and on a busy machine very long.
	rdb := Start(t, redis.Options{Client: server.ClientOption(), Embedded: true, KeyPrefix: "test:", Timeout: 30 * time.Second})
	WaitReady(t, rdb)
	return rdb
}
