package redis

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

const evictionInterval = time.Minute // between two checks of a node's eviction policy

// checkEviction warns when a node may evict locks, once for each policy that it is given.
func (r *Client) checkEviction(ctx context.Context, client rueidis.Client, n *node) {
	n.mu.Lock()
	name, last, logged := n.name, n.policyReadAt, n.policyLogged
	n.mu.Unlock()
	if r.opt.Embedded || time.Since(last) < r.opt.evictionInterval {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.opt.Timeout)
	defer cancel()
	config, err := leaveBehind(ctx, func(ctx context.Context) (map[string]string, error) {
		c := connectionOf(client, name)
		return c.Do(ctx, c.B().ConfigGet().Parameter("maxmemory*").Build()).AsStrMap()
	})
	policy := config["maxmemory-policy"]
	if config["maxmemory"] == "0" || policy == "noeviction" {
		policy = ""
	}
	n.mu.Lock()
	n.policyReadAt = time.Now()
	if err == nil { // a hosted server may refuse CONFIG GET
		n.policyLogged = policy
	}
	n.mu.Unlock()
	switch {
	case err != nil || policy == logged:
	case policy == "":
		r.log.Info("Redis does not evict locks any more", "node", name)
	default:
		r.log.Warn("Redis may evict locks before they end: set maxmemory-policy to noeviction", "node", name, "maxmemory-policy", policy)
	}
}

// connectionOf returns the connections to one node, where client has those of a Cluster.
func connectionOf(client rueidis.Client, node string) rueidis.Client {
	if client.Mode() == rueidis.ClientModeCluster {
		if c := client.Nodes()[node]; c != nil {
			return c
		}
	}
	return client
}
