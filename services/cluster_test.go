package services_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// livesOn is a name of which both the lock and the limit live on a master of a Cluster.
func livesOn(t *testing.T, nodes []*servicestest.RedisServer, master int) string {
	t.Helper()
	on := func(tag string) bool {
		slot, err := strconv.Atoi(nodes[0].Do("CLUSTER", "KEYSLOT", tag))
		if err != nil {
			t.Fatal(err)
		}
		return slot*len(nodes)/16384 == master
	}
	for i := range 1000 {
		name := fmt.Sprint("r:", master, ":", i)
		if on(shardTag(name)) && on(name) {
			return name
		}
	}
	t.Fatal("no name lives there")
	return ""
}

// shardTag is the hash tag of a lock.
func shardTag(resource string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(resource))
	return fmt.Sprint(h.Sum32() % 16)
}

// clusterOf is a client of a Cluster, with work for each of its masters.
type clusterOf struct {
	*watched
	nodes []*servicestest.RedisServer
	names []string // of what lives on which master
}

// clusterTimeout is REDIS_TIMEOUT where a node is lost: one that is there answers in time on a busy
// machine too.
const clusterTimeout = time.Second

func watchCluster(t *testing.T, nodes []*servicestest.RedisServer, timeout time.Duration) *clusterOf {
	t.Helper()
	var addresses []string
	for _, node := range nodes {
		addresses = append(addresses, node.Addr)
	}
	c := &clusterOf{nodes: nodes, watched: watch(t, redis.Options{Client: rueidis.ClientOption{InitAddress: addresses}, Timeout: timeout})}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the nodes: %+v; the log:\n%s", c.Nodes(), c.log.String())
		}
	})
	redistest.WaitReady(t, c.Client)
	for i := range nodes {
		c.names = append(c.names, livesOn(t, nodes, i))
	}
	return c
}

// share is which part of the rounds on a master's keys was exact, and how many there were.
type share struct{ worked, rounds int64 }

// mostly reports whether nearly all rounds were exact.
func (s share) mostly() bool { return s.worked*10 >= s.rounds*9 }

// stretch is how long it is worked on all masters' keys to get their shares.
const stretch = clusterTimeout

// flows reports whether the rounds of a stretch did not wait for a node that does not answer: of
// those that do there is one.
func (s share) flows() bool { return s.rounds >= 10 }

// workEverywhere works on all masters' keys while d passes.
func (c *clusterOf) workEverywhere(t *testing.T, d time.Duration) []share {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	shares := make([]share, len(c.names))
	var wg sync.WaitGroup
	for i, name := range c.names {
		wg.Go(func() {
			alone := &watched{Client: c.Client, locks: c.locks, limits: c.limits, pause: c.pause}
			alone.work(ctx, t, name)
			shares[i] = share{alone.worked.Load(), alone.rounds.Load()}
		})
	}
	wg.Wait()
	return shares
}

// exactBut waits for a stretch in which nothing waited and everything was exact, but what lives on
// the lost master (-1: none is), where no round may be in any stretch. There may be several: what
// was lost on the way is made good for beside the work, and a machine may stand still for a moment.
func (c *clusterOf) exactBut(t *testing.T, lost int) (after []share) {
	t.Helper()
	servicestest.Eventually(t, func() bool {
		after = c.workEverywhere(t, stretch)
		all := true
		for i, s := range after {
			if i == lost && s.worked > 0 {
				t.Fatalf("%d rounds worked on the lost node", s.worked)
			}
			all = all && s.flows() && (i == lost || s.mostly())
		}
		return all
	}, "what lives on the other nodes is not exact, or something waits")
	return after
}

// One master of a Cluster is frozen, another killed: what lives there is degraded at once
// and without a wait, everything else stays exact, streams stay open, and it is told once.
func TestRedisClusterLosesAMaster(t *testing.T) {
	t.Parallel()
	// The others must not take each other for lost when the machine is busy.
	nodes := servicestest.StartCluster(t, "--cluster-require-full-coverage", "no", "--cluster-node-timeout", "60000")
	c := watchCluster(t, nodes, clusterTimeout)
	events := c.locks.Events(t.Context())
	go func() {
		for range events { // so that it does not fall behind
			continue
		}
		if t.Context().Err() == nil {
			t.Error("the stream of events was ended")
		}
	}()
	c.exactBut(t, -1)
	lose := func(lost int, strike func()) {
		t.Helper()
		strike()
		servicestest.Eventually(t, func() bool { return !c.AvailableFor(c.names[lost]) }, "the node counts as available")
		after := c.exactBut(t, lost)
		// It was left alone after three failed calls. It counts as away when a probe has failed, too.
		servicestest.Eventually(t, func() bool { return len(c.log.With("not available")) > 0 }, "nothing says why")
		if lines := c.log.With("not available", nodes[lost].Addr); len(lines) != 1 || len(c.log.With("is")) != 1 {
			t.Errorf("node %d: the log:\n%s", lost, c.log.String())
		}
		if c.Available() || c.Status() != "down" || c.Reason() == "" {
			t.Errorf("%s, %q", c.Status(), c.Reason())
		}
		t.Logf("without node %d: %+v; %s", lost, after, c.Reason())
	}
	lose(1, nodes[1].Freeze)
	nodes[1].Thaw()
	servicestest.Eventually(t, c.Available, "not back")
	c.exactBut(t, -1)
	if lines := c.log.With("Redis is available", nodes[1].Addr); len(lines) != 1 {
		t.Errorf("the log:\n%s", c.log.String())
	}
	c.log.Reset()
	lose(2, nodes[2].Kill)
}

// A master's replica takes over. What lives there is degraded until then; the rest is
// exact all the time.
func TestRedisClusterFailsOver(t *testing.T) {
	t.Parallel()
	nodes := servicestest.StartCluster(t, "--cluster-require-full-coverage", "no")
	replicas := servicestest.StartReplicas(t, nodes)
	c := watchCluster(t, nodes, clusterTimeout)
	held := lockFor(t, c.locks, "kept:"+c.names[0])
	nodes[0].Kill()
	servicestest.Eventually(t, func() bool { return !c.AvailableFor(c.names[0]) }, "the node counts as available")
	var all []share
	servicestest.Eventually(t, func() bool { all = append(all, c.workEverywhere(t, 500*time.Millisecond)...); return c.Available() }, "the replica is not used")
	for master := 1; master < len(nodes); master++ {
		var sum share
		for i := master; i < len(all); i += len(nodes) {
			sum.worked, sum.rounds = sum.worked+all[i].worked, sum.rounds+all[i].rounds
		}
		if sum.worked*4 < sum.rounds*3 {
			t.Errorf("while the replica took over, node %d: %+v", master, sum)
		}
	}
	after := c.exactBut(t, -1)
	if degraded, err := c.locks.Check(t.Context(), held.Claim); err != nil || degraded {
		t.Errorf("a lock from before: degraded %v, %v", degraded, err)
	}
	if lost, back := c.log.With("not available", nodes[0].Addr), c.log.With("Redis is available", replicas[0].Addr); len(lost) != 1 || len(back) != 1 || len(c.log.With("Redis")) != 2 {
		t.Errorf("the log:\n%s", c.log.String())
	}
	t.Logf("after %+v, the log:\n%s", after, c.log.String())
}

// Slots move from one master to another while they are used: what lives there works on meanwhile,
// and is exact afterwards, and no node counts as away.
func TestRedisClusterMovesSlots(t *testing.T) {
	t.Parallel()
	nodes := servicestest.StartCluster(t)
	c := watchCluster(t, nodes, 10*time.Second) // what is late is not lost
	all, done := make(chan struct{}), make(chan []share, 1)
	go func() {
		sums := make([]share, len(c.names))
		for over := false; !over; {
			for i, s := range c.workEverywhere(t, 500*time.Millisecond) {
				sums[i].worked, sums[i].rounds = sums[i].worked+s.worked, sums[i].rounds+s.rounds
			}
			select {
			case <-all:
				over = true
			default:
			}
		}
		done <- sums
	}()
	moved := 0
	for round := range 2 {
		for i, name := range c.names {
			for _, tag := range []string{shardTag(name), name} {
				from, to := nodes[(i+round)%3], nodes[(i+round+1)%3]
				servicestest.MoveSlot(t, nodes[0].Do("CLUSTER", "KEYSLOT", tag), from, to, nodes)
				moved++
			}
		}
	}
	close(all)
	shares := <-done
	for i, s := range shares { // how many depends on how long this machine takes to move a slot
		if s.worked == 0 {
			t.Errorf("node %d, meanwhile: %+v", i, s)
		}
	}
	c.exactBut(t, -1)
	if text := c.log.String(); text != "" {
		t.Errorf("the log:\n%s", text)
	}
	servicestest.Eventually(t, func() bool {
		held, err := c.locks.TryAcquire(t.Context(), lockRequest(c.names[0]))
		return err == nil && !held.Degraded
	}, "the moved lock is degraded")
	decisions, err := c.limits.Peek(t.Context(), "", models.Hit{Policy: models.Policy{Name: "p", Limit: models.MaxLimit, Window: time.Minute}, Key: c.names[0]})
	if err != nil || decisions[0].Degraded {
		t.Errorf("%+v, %v", decisions, err)
	}
	t.Logf("%d slots moved: %+v", moved, shares)
}

// A Sentinel makes a replica the master: one line when it goes, one when it is back.
func TestRedisSentinelFailsOver(t *testing.T) {
	t.Parallel()
	sentinel := servicestest.StartSentinel(t)
	w := watch(t, redis.Options{
		Client:  rueidis.ClientOption{InitAddress: []string{sentinel.Addr}, Sentinel: rueidis.SentinelOption{MasterSet: servicestest.SentinelName}},
		Timeout: 250 * time.Millisecond,
	})
	redistest.WaitReady(t, w.Client)
	if node := w.Nodes()[0]; node.Name != sentinel.Master.Addr {
		t.Errorf("%+v, the master is %s", node, sentinel.Master.Addr)
	}
	sentinel.Master.Kill()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.work(ctx, t, w.name) })
	servicestest.Eventually(t, func() bool { return len(w.log.With("not available")) > 0 }, "still available")
	servicestest.Eventually(t, w.Available, "the replica is not used")
	cancel()
	wg.Wait()
	if node := w.Nodes()[0]; node.Name != sentinel.Replica.Addr {
		t.Errorf("%+v, the new master is %s", node, sentinel.Replica.Addr)
	}
	if w.changes.Load() > 2 || len(w.log.With("not available")) > 2 || len(w.log.With("Redis is available")) != 1 {
		t.Errorf("%d changes:\n%s", w.changes.Load(), w.log.String())
	}
}
