package session_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// provenRedis is a master and its replica, and what stands between the master and
// each instance: a failover moves all of them to the replica.
type provenRedis struct {
	t               *testing.T
	master, replica *servicestest.RedisServer
	dumps           map[*servicestest.RedisServer]string
	proxies         []*servicestest.Proxy
}

func startProvenRedis(t *testing.T) *provenRedis {
	r := &provenRedis{t: t, dumps: map[*servicestest.RedisServer]string{}}
	start := func() *servicestest.RedisServer {
		folder := t.TempDir()
		server := servicestest.StartRedis(t, "--dir", folder, "--dbfilename", "old.rdb", "--repl-diskless-sync-delay", "0")
		r.dumps[server] = filepath.Join(folder, "old.rdb")
		return server
	}
	r.master, r.replica = start(), start()
	r.replica.Follow(r.master)
	return r
}

// proxy is the address of the master for one more instance.
func (r *provenRedis) proxy() string {
	p := servicestest.NewProxy(r.t, r.master.Addr)
	r.proxies = append(r.proxies, p)
	return p.Addr
}

// failOver makes the replica the master while no instance reaches the old one, which
// comes back as its replica.
func (r *provenRedis) failOver() {
	r.master.Kill()
	r.replica.Promote()
	r.master, r.replica = r.replica, r.master
	for _, p := range r.proxies {
		p.Retarget(r.master.Addr)
	}
	r.replica.Start()
	r.replica.Follow(r.master)
}

// breakUntil brings one fault after the other until stop. healthy is true from when
// all instances get hints again, a second after a fault, until the next.
func (r *provenRedis) breakUntil(stop chan struct{}, healthy *atomic.Bool) {
	pause := func(most time.Duration) {
		select {
		case <-time.After(most/4 + rand.N(most)):
		case <-stop:
		}
	}
	for {
		select {
		case <-time.After(time.Second): // until an instance that lost a connection has noticed
		case <-stop:
			return
		}
		for healed := time.Now(); !r.listening() && time.Since(healed) < 5*time.Second; {
			pause(20 * time.Millisecond)
		}
		healthy.Store(r.listening())
		pause(1500 * time.Millisecond)
		select {
		case <-stop:
			return
		default:
		}
		healthy.Store(false)
		switch rand.IntN(6) {
		case 0:
			r.master.Freeze()
			pause(1200 * time.Millisecond)
			r.master.Thaw()
		case 1: // dies, comes back empty
			_ = os.Remove(r.dumps[r.master])
			r.master.Kill()
			pause(500 * time.Millisecond)
			r.master.Start()
		case 2:
			r.master.Do("FLUSHALL")
		case 3:
			proxy := r.proxies[rand.IntN(len(r.proxies))]
			proxy.Cut()
			pause(1500 * time.Millisecond)
			proxy.Restore()
		case 4: // comes back with what it had a while ago
			r.master.Do("SAVE")
			pause(1500 * time.Millisecond)
			r.master.Kill()
			pause(300 * time.Millisecond)
			r.master.Start()
		case 5: // fails over to a replica that has missed what came last
			r.replica.LoseMaster()
			pause(1500 * time.Millisecond)
			r.failOver()
		}
	}
}

// listening reports whether every instance listens to hints.
func (r *provenRedis) listening() bool {
	_, listeners, _ := strings.Cut(r.master.Do("PUBSUB", "NUMSUB", "test:revoked"), "\n")
	return listeners == strconv.Itoa(len(r.proxies))
}
