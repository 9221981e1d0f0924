package servicestest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// SentinelName is what StartSentinel calls its master.
const SentinelName = "gatehouse"

// Sentinel is a master, its replica, and a sentinel that makes the replica the
// master when the master is gone.
type Sentinel struct {
	Addr            string // of the sentinel
	Master, Replica *RedisServer
}

// StartSentinel starts all three. They end with the test.
func StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	master := StartRedis(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(master.Addr)
	replica := StartRedis(t, "--replicaof", host+" "+port)
	Eventually(t, 10*time.Second, func() bool {
		return strings.Contains(replica.Do("INFO", "replication"), "master_link_status:up")
	}, "the replica does not follow")
	sentinel := &RedisServer{Addr: FreeAddr(t), t: t, config: filepath.Join(t.TempDir(), "sentinel.conf")}
	_, sentinel.port, _ = net.SplitHostPort(sentinel.Addr)
	config := fmt.Sprintf(`sentinel monitor %[1]s %[2]s %[3]s 1
sentinel down-after-milliseconds %[1]s 400
sentinel failover-timeout %[1]s 3000
`, SentinelName, host, port)
	if err := os.WriteFile(sentinel.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel.Start()
	t.Cleanup(sentinel.Kill)
	Eventually(t, 15*time.Second, func() bool {
		return strings.Contains(sentinel.Do("SENTINEL", "REPLICAS", SentinelName), replica.port)
	}, "the sentinel does not see the replica")
	return &Sentinel{Addr: sentinel.Addr, Master: master, Replica: replica}
}

// WaitFailedOver waits until the replica is the master.
func (s *Sentinel) WaitFailedOver(t testing.TB) {
	t.Helper()
	Eventually(t, 15*time.Second, func() bool {
		info, err := s.Replica.try("INFO", "replication") // the sentinel ends its connections then
		return err == nil && strings.Contains(info, "role:master")
	}, "the replica was not made the master")
}

// StartCluster starts three masters that share the slots. They end with the test.
func StartCluster(t testing.TB) []*RedisServer {
	t.Helper()
	const masters, slots = 3, 16384
	var nodes []*RedisServer
	var buses []string
	for i := range masters {
		// The usual bus port, 10,000 above, may not exist.
		_, bus, _ := net.SplitHostPort(FreeAddr(t))
		node := StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000")
		node.Do("CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(i*slots/masters), fmt.Sprint((i+1)*slots/masters-1))
		nodes, buses = append(nodes, node), append(buses, bus)
	}
	for i, node := range nodes[1:] {
		nodes[0].Do("CLUSTER", "MEET", "127.0.0.1", node.port, buses[i+1])
	}
	for _, node := range nodes {
		Eventually(t, 15*time.Second, func() bool {
			info := node.Do("CLUSTER", "INFO")
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", masters))
		}, "the cluster does not form")
	}
	return nodes
}
