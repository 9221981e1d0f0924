package redis

import (
	"cmp"
	"context"
	"time"

	"github.com/redis/rueidis"
)

const evictionLook = time.Minute // between two looks at the eviction policy of a node

// lookAtEviction warns now and then when a node may evict locks, once for each policy
// that it is given.
func (r *Client) lookAtEviction(ctx context.Context, client rueidis.Client, n *node) {
	n.mu.Lock()
	name, last, told := n.name, n.looked, n.evicts
	n.mu.Unlock()
	if r.opt.Embedded || time.Since(last) < cmp.Or(r.opt.evictionLook, evictionLook) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, r.opt.Timeout)
	defer cancel()
	config, err := leave(ctx, func(ctx context.Context) (map[string]string, error) {
		c := connectionOf(client, name)
		return c.Do(ctx, c.B().ConfigGet().Parameter("maxmemory*").Build()).AsStrMap()
	})
	policy := config["maxmemory-policy"]
	if config["maxmemory"] == "0" || policy == "noeviction" {
		policy = ""
	}
	n.mu.Lock()
	n.looked = time.Now()
	if err == nil { // hosted servers may not let it be read
		n.evicts = policy
	}
	n.mu.Unlock()
	switch {
	case err != nil || policy == told:
	case policy == "":
		r.log.Info("Redis does not evict locks any more", "node", name)
	default:
		r.log.Warn("Redis may evict locks before they end: set maxmemory-policy to noeviction", "node", name, "maxmemory-policy", policy)
	}
}

// connectionOf is client for commands that go to one node.
func connectionOf(client rueidis.Client, node string) rueidis.Client {
	if client.Mode() == rueidis.ClientModeCluster {
		if c := client.Nodes()[node]; c != nil {
			return c
		}
	}
	return client
}
