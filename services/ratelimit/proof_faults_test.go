package ratelimit

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// lossFault is a way in which Redis loses what it has.
type lossFault int

const (
	emptied lossFault = iota
	promoted
	restarted
	lossFaults
)

// proofServers are a master, behind a proxy for each instance, and its replica.
type proofServers struct {
	master, replica *servicestest.RedisServer
	proxies         []*servicestest.Proxy
}

func newProofServers(t *testing.T) *proofServers {
	t.Helper()
	s := &proofServers{
		master:  servicestest.StartRedis(t, "--repl-diskless-sync-delay", "0"),
		replica: servicestest.StartRedis(t, "--repl-diskless-sync-delay", "0"),
	}
	s.replica.Follow(s.master)
	return s
}

// inSync reports whether the replica follows.
func (s *proofServers) inSync() bool {
	return strings.Contains(s.replica.Do("INFO", "replication"), "master_link_status:up")
}

// lose makes Redis lose all it has, or what it had last, and returns when: the span is that of the
// loss itself.
func (s *proofServers) lose(fault lossFault, rnd *rand.Rand) span {
	failOver := fault == promoted && s.inSync()
	if failOver {
		s.replica.LoseMaster()
		<-time.After(time.Duration(rnd.IntN(50)) * time.Millisecond) // writes that it misses
	}
	from := time.Now().UnixMicro() - clockSlack
	switch {
	case fault == emptied:
		s.master.Do("FLUSHALL")
	case failOver:
		s.failOver()
	default:
		s.master.Restart()
	}
	return span{from, time.Now().UnixMicro()}
}

// failOver makes the replica the master of all, and the master, empty, its replica.
func (s *proofServers) failOver() {
	s.master, s.replica = s.replica, s.master
	s.master.Promote()
	for _, proxy := range s.proxies {
		proxy.Retarget(s.master.Addr)
	}
	s.replica.Restart()
	s.replica.Follow(s.master)
}

// disturb flushes the scripts until every instance has ended. Once each is half through, it also
// cuts connections, loses replies to what was executed and, after each pause, what Redis has. It
// logs how far they are, and returns when Redis lost something.
func disturb(t *testing.T, servers *proofServers, instances []*servicestest.Process, pause time.Duration) (lost []span) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(21, 22))
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	half, started, told, next := false, time.Now(), time.Now(), time.Time{}
	for {
		<-ticker.C
		if !slices.ContainsFunc(instances, running) {
			return lost
		}
		if rnd.IntN(3) == 0 {
			servers.master.Do("SCRIPT", "FLUSH")
		}
		if time.Since(told) > 30*time.Second {
			told = time.Now()
			for i, p := range instances {
				t.Logf("after %v instance %d is %d%% through", told.Sub(started).Round(time.Second), i, len(p.Lines("percent")))
			}
		}
		half = half || !slices.ContainsFunc(instances, func(p *servicestest.Process) bool { return len(p.Lines("half")) == 0 })
		if half && time.Now().After(next) {
			lost = append(lost, servers.lose(lossFault(len(lost))%lossFaults, rnd))
			next = time.Now().Add(pause)
		}
		if half && rnd.IntN(4) == 0 {
			proxy := servers.proxies[rnd.IntN(len(servers.proxies))]
			if rnd.IntN(2) == 0 {
				proxy.LoseReplies(1 + rnd.IntN(3))
				continue
			}
			proxy.Cut()
			<-time.After(time.Duration(rnd.IntN(50)) * time.Millisecond)
			proxy.Restore()
		}
	}
}

func running(p *servicestest.Process) bool {
	select {
	case <-p.Ended():
		return false
	default:
		return true
	}
}
