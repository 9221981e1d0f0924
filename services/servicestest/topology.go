package servicestest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// SentinelName is the name of the master of StartSentinel.
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
	Eventually(t, func() bool {
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
	// Once woken 2 s late it stands still for 30 s, so on a busy machine it goes first, if root asks.
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, sentinel.cmd.Process.Pid, -10)
	Eventually(t, func() bool {
		return strings.Contains(sentinel.Do("SENTINEL", "REPLICAS", SentinelName), replica.port)
	}, "the sentinel does not see the replica")
	return &Sentinel{Addr: sentinel.Addr, Master: master, Replica: replica}
}

// WaitFailedOver waits until the replica is the master.
func (s *Sentinel) WaitFailedOver(t testing.TB) {
	t.Helper()
	Eventually(t, func() bool {
		info, err := s.Replica.try(aMoment, "INFO", "replication") // the sentinel ends its connections then
		return err == nil && strings.Contains(info, "role:master")
	}, "the replica was not made the master")
}

// StartCluster starts three masters that share the slots, with args for each. They end
// with the test.
func StartCluster(t testing.TB, args ...string) []*RedisServer {
	t.Helper()
	const masters, slots = 3, 16384
	var nodes []*RedisServer
	for i := range masters {
		node := startClusterNode(t, args...)
		node.Do("CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(i*slots/masters), fmt.Sprint((i+1)*slots/masters-1))
		nodes = append(nodes, node)
	}
	for _, node := range nodes[1:] {
		node.meet(nodes[0])
	}
	for _, node := range nodes {
		node.waitForCluster(masters)
	}
	return nodes
}

// StartReplicas starts a replica for each of a Cluster's masters. They end with the test.
func StartReplicas(t testing.TB, masters []*RedisServer) []*RedisServer {
	t.Helper()
	var replicas []*RedisServer
	for range masters {
		replica := startClusterNode(t, "--repl-diskless-sync-delay", "0")
		replica.meet(masters[0])
		replicas = append(replicas, replica)
	}
	for i, master := range masters {
		replicas[i].waitForCluster(2 * len(masters))
		replicas[i].Do("CLUSTER", "REPLICATE", master.Do("CLUSTER", "MYID"))
	}
	for i, master := range masters {
		master.waitForCluster(2 * len(masters))
		Eventually(t, func() bool {
			return strings.Contains(replicas[i].Do("INFO", "replication"), "master_link_status:up")
		}, "a replica does not follow")
	}
	return replicas
}

func startClusterNode(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	// The usual bus port, 10,000 above, may not exist.
	_, bus, _ := net.SplitHostPort(FreeAddr(t))
	return StartRedis(t, append([]string{
		"--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000",
		"--cluster-config-file", filepath.Join(t.TempDir(), "nodes.conf"),
	}, args...)...)
}

// meet adds the server to the Cluster of member.
func (s *RedisServer) meet(member *RedisServer) {
	s.t.Helper()
	bus := member.args[slices.Index(member.args, "--cluster-port")+1]
	s.Do("CLUSTER", "MEET", "127.0.0.1", member.port, bus)
}

func (s *RedisServer) waitForCluster(nodes int) {
	s.t.Helper()
	Eventually(s.t, func() bool {
		info := s.Do("CLUSTER", "INFO")
		return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_slots_ok:16384") && strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", nodes))
	}, "the cluster does not form")
}

// MoveSlot moves a slot and its keys from one master of a Cluster to another, as
// redis-cli --cluster reshard does, while clients use it. It returns when all masters know. If a
// slot is moved on before, what the last owner said before it gave the slot away can count for more
// than what the new one says, and then no master has the slot.
func MoveSlot(t testing.TB, slot string, from, to *RedisServer, all []*RedisServer) {
	t.Helper()
	to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", from.Do("CLUSTER", "MYID"))
	from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", to.Do("CLUSTER", "MYID"))
	for {
		keys := strings.Fields(from.Do("CLUSTER", "GETKEYSINSLOT", slot, "10"))
		if len(keys) == 0 {
			break
		}
		for _, key := range keys {
			from.Do("MIGRATE", "127.0.0.1", to.port, key, "0", "1000")
		}
	}
	for _, node := range append([]*RedisServer{to, from}, all...) {
		node.Do("CLUSTER", "SETSLOT", slot, "NODE", to.Do("CLUSTER", "MYID"))
	}
	epoch := clusterInfo(to, "cluster_my_epoch")
	Eventually(t, func() bool {
		return !slices.ContainsFunc(all, func(node *RedisServer) bool { return clusterInfo(node, "cluster_current_epoch") != epoch })
	}, "not all masters know of the slot that was moved")
}

func clusterInfo(node *RedisServer, field string) string {
	_, rest, _ := strings.Cut(node.Do("CLUSTER", "INFO"), field+":")
	value, _, _ := strings.Cut(rest, "\r\n")
	return value
}
