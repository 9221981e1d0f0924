package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"
)

const (
	slots           = 16384
	topologyRefresh = time.Second // between two reads of the slots; while a node is away, probeInterval
	keyTries        = 1 << 20     // hash tags tried, to find one that lives on a master
)

// followCluster reads from the masters which slots they have, keeps r.nodes up to date, and has
// each master probed, until ctx ends.
func (r *Client) followCluster(ctx context.Context, client rueidis.Client, first *node) {
	var refreshed time.Time
	for {
		if time.Since(refreshed) >= topologyRefresh || !r.Available() {
			refreshed = time.Now()
			ranges, err := r.readSlots(ctx, client)
			switch {
			case ctx.Err() != nil:
				return
			case err == nil:
				r.arrange(client, ranges)
			case r.nodes.Load().ranges == nil:
				r.probeFailed(first, err)
			}
		}
		select {
		case <-time.After(probeInterval):
		case <-r.slotsDue:
			refreshed = time.Time{}
			select { // each call that fails may have asked for a read
			case <-time.After(probeSoon):
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// refreshSlots asks followCluster to read the slots soon.
func (r *Client) refreshSlots() {
	select {
	case r.slotsDue <- struct{}{}:
	default: // it was asked already
	}
}

// readSlots asks one node after the other for the slots, those that serve first.
func (r *Client) readSlots(ctx context.Context, client rueidis.Client) ([]slotRange, error) {
	asked := client.Nodes()
	var names []string
	for _, n := range r.nodes.Load().all {
		if !n.shut.Load() {
			names = append(names, n.name)
		}
	}
	for name := range asked {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	err := errors.New("the Cluster has no nodes")
	for _, name := range names {
		node := asked[name]
		if node == nil {
			continue
		}
		var reply []rueidis.RedisMessage
		if reply, err = slotsOf(ctx, node, r.opt.Timeout); err == nil {
			var ranges []slotRange
			if ranges, err = parseSlots(reply, name); err == nil {
				return ranges, nil
			}
		}
	}
	return nil, err
}

func slotsOf(ctx context.Context, node rueidis.Client, timeout time.Duration) ([]rueidis.RedisMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return leaveBehind(ctx, func(ctx context.Context) ([]rueidis.RedisMessage, error) {
		return node.Do(ctx, node.B().ClusterSlots().Build()).ToArray()
	})
}

// parseSlots parses the reply to CLUSTER SLOTS of the node at address.
func parseSlots(reply []rueidis.RedisMessage, address string) ([]slotRange, error) {
	var ranges []slotRange
	for _, message := range reply {
		fields, err := message.ToArray()
		if err != nil || len(fields) < 3 {
			return nil, fmt.Errorf("read CLUSTER SLOTS: %d fields: %w", len(fields), err)
		}
		from, errFrom := fields[0].AsInt64()
		to, errTo := fields[1].AsInt64()
		master, errMaster := fields[2].ToArray()
		if err := errors.Join(errFrom, errTo, errMaster); err != nil || from < 0 || to >= slots || from > to || len(master) < 2 {
			return nil, fmt.Errorf("read CLUSTER SLOTS: slots %d to %d: %w", from, to, err)
		}
		host, _ := master[0].ToString() // none where the node does not know its own
		if host == "" {
			host, _, _ = net.SplitHostPort(address)
		}
		port, err := master[1].AsInt64()
		if err != nil {
			return nil, fmt.Errorf("read CLUSTER SLOTS: %w", err)
		}
		ranges = append(ranges, slotRange{from: uint16(from), to: uint16(to), master: net.JoinHostPort(host, strconv.FormatInt(port, 10))})
	}
	slices.SortFunc(ranges, func(a, b slotRange) int { return cmp.Compare(a.from, b.from) })
	return ranges, nil
}

// covered adds the slots that no master has to ranges, with the master "".
func covered(ranges []slotRange) []slotRange {
	var all []slotRange
	next := 0
	for _, here := range ranges {
		if int(here.from) > next {
			all = append(all, slotRange{from: uint16(next), to: here.from - 1})
		}
		all = append(all, here)
		next = int(here.to) + 1
	}
	if next < slots {
		all = append(all, slotRange{from: uint16(next), to: slots - 1})
	}
	return all
}

// arrange makes the masters of ranges the nodes. A master that stays keeps its health, a new
// one is away until its first probe, and one without slots is removed.
func (r *Client) arrange(client rueidis.Client, ranges []slotRange) {
	before := r.nodes.Load()
	ranges = covered(ranges)
	if before.ranges != nil && slices.EqualFunc(before.ranges, ranges, func(a, b slotRange) bool {
		return a.from == b.from && a.to == b.to && a.master == b.master
	}) {
		return
	}
	now := &nodes{ranges: ranges, slotOf: slotsIn(client)}
	byName := map[string]*node{}
	if before.ranges != nil {
		for _, n := range before.all {
			byName[n.name] = n
		}
	}
	var fresh []*node
	for i := range ranges {
		name := ranges[i].master
		n := byName[name]
		if n == nil {
			n = newNode(name, "", r.opt.Timeout, before.ranges == nil && before.all[0].isQuiet())
			byName[name] = n
			fresh = append(fresh, n)
		}
		ranges[i].node = n
		if !slices.Contains(now.all, n) {
			now.all = append(now.all, n)
		}
	}
	r.placeProbes(now)
	r.nodes.Store(now)
	for _, n := range before.all {
		if n.stop != nil && !slices.Contains(now.all, n) {
			n.stop()
		}
	}
	for _, n := range fresh {
		if n.name == "" { // there is no master to probe
			r.probeFailed(n, errUnassigned)
			continue
		}
		n.stop = r.spawn(func(ctx context.Context) { r.probeNode(ctx, client, n) })
	}
}

// placeProbes gives each node a key for its probe that lives on it.
func (r *Client) placeProbes(set *nodes) {
	missing := len(set.all)
	placed := map[*node]bool{}
	for tag := 0; tag < keyTries && len(placed) < missing; tag++ {
		key := r.Key("{" + strconv.Itoa(tag) + "}probe")
		if n := set.of(key); !placed[n] {
			placed[n] = true
			n.mu.Lock()
			n.key = key
			n.mu.Unlock()
		}
	}
}

// errUnassigned is the cause for the keys in slots without a master.
var errUnassigned = errors.New("slots of the Cluster have no master")
