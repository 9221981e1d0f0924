package redis_test

import (
	"testing"
	"time"

	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// A call waits as long as its Timeout says: no shorter time of the connection ends it.
func TestCallWaitsAsLongAsItMay(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	rdb := redistest.At(t, server.Addr, redis.Options{Timeout: 20 * time.Second})
	redistest.WaitReady(t, rdb)
	server.Freeze()
	answered := make(chan error, 1)
	go func() { answered <- ping(t.Context(), rdb) }()
	select {
	case err := <-answered:
		t.Fatalf("ended while the server was frozen: %v", err)
	case <-time.After(4 * time.Second): // a ping of the connection is late by then
	}
	server.Thaw()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}
