package redis

import (
	"context"
	"crypto/sha1" //nolint:gosec // as EVALSHA wants it
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

const probeSoon = 50 * time.Millisecond // after a probe or a call that failed

// OnRecover registers fn to run each time a node of Redis answers again, before it
// counts as available: what has to reach it before anything else goes here. Redis
// calls made with fn's context pass to the node that returns; those to a node that is
// still away answer models.ErrUnavailable at once, and fn runs again when that returns,
// so fn keeps what it could not send. Only one fn runs at a time. The context ends after
// ten Timeouts.
func (r *Client) OnRecover(fn func(context.Context)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onRecover = append(r.onRecover, fn)
}

type recoveryKey struct{}

// recovering is the node for whose return the hook runs that ctx was made for.
func recovering(ctx context.Context) *node {
	n, _ := ctx.Value(recoveryKey{}).(*node)
	return n
}

func (r *Client) recover(ctx context.Context, n *node) {
	r.recovery.Lock()
	defer r.recovery.Unlock()
	r.mu.Lock()
	hooks := slices.Clone(r.onRecover)
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, recoveryKey{}, n), 10*r.opt.Timeout)
	defer cancel()
	for _, hook := range hooks {
		hook(ctx)
	}
}

// connect connects, trying again until ctx ends, and has the nodes probed.
func (r *Client) connect(ctx context.Context) {
	one := r.nodes.Load().all[0]
	opt := r.main
	for {
		client, err := rueidis.NewClient(opt)
		if client != nil {
			r.client.Store(&client)
			if client.Mode() == rueidis.ClientModeCluster {
				r.followCluster(ctx, client, one)
			} else {
				r.watch(ctx, client, one)
			}
			return
		}
		if ctx.Err() == nil {
			r.away(one, err)
		}
		select {
		case <-time.After(probeInterval):
		case <-ctx.Done():
			return
		}
	}
}

// watch probes a node every 250 ms, and at once after a call that failed, until ctx
// ends.
func (r *Client) watch(ctx context.Context, client rueidis.Client, n *node) {
	for round := 0; ; round++ {
		if client.Mode() == rueidis.ClientModeSentinel {
			n.rename(slices.Collect(maps.Keys(client.Nodes())))
		}
		start := time.Now()
		err := r.ask(ctx, client, n, round%wholeProbes == 0)
		took := time.Since(start)
		if ctx.Err() != nil {
			return
		}
		pause := probeInterval
		if err != nil {
			r.away(n, err)
		} else {
			r.serves(ctx, client, n, took)
		}
		if n.used() && (err != nil || n.shut.Load()) { // the question is open
			pause = probeSoon
		}
		select {
		case <-time.After(pause - min(took, pause)):
		case <-n.wake:
			select {
			case <-time.After(probeSoon - min(took, probeSoon)):
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// ask probes a node once. While it waits, each Timeout and a half that passes counts as a
// failure: round trips that are only a little too long leave no doubt.
func (r *Client) ask(ctx context.Context, client rueidis.Client, n *node, whole bool) error {
	n.mu.Lock()
	key := n.key
	whole = n.suspect.Swap(false) || whole || !n.health.up || n.lack.state != ""
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience(r.opt.Timeout))
	defer cancel()
	waited := time.NewTicker(r.opt.Timeout * 3 / 2)
	defer waited.Stop()
	done := make(chan error, 1)
	go func() { done <- r.askAndNote(ctx, client, key, whole) }()
	for {
		select {
		case err := <-done:
			return r.learnLack(n, err, whole)
		case <-waited.C:
			n.note((*health).waited)
		case <-ctx.Done(): // rueidis may still dial
			select {
			case err := <-done:
				return r.learnLack(n, err, whole)
			default:
				return ctx.Err()
			}
		}
	}
}

// learnLack notes what a whole probe says that the node can do without.
func (r *Client) learnLack(n *node, err error, whole bool) error {
	var lacks *lackError
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case errors.As(err, &lacks) && lacks.command == "PUBLISH" && !isTransient(lacks.reply):
		n.lack = cause{NodeMute, "it does not let us PUBLISH: other instances hear of locks and ended sessions later", err}
		return nil
	case err == nil && whole:
		n.lack = cause{}
	}
	return err
}

// askAndNote asks, and notes that the connection serves.
func (r *Client) askAndNote(ctx context.Context, client rueidis.Client, key string, whole bool) error {
	lost := r.live.lost.Load()
	err := r.whetherItServes(ctx, client, key, whole)
	if answered(err) && client.Mode() != rueidis.ClientModeCluster {
		r.live.served(lost)
	}
	return err
}

// whetherItServes is a write, so that a full or read-only server counts as away. A whole
// probe does what the work does, so that one does, too, that runs no scripts or does not
// let its user do all that they do; it asks for new scripts and for those that the server
// has.
func (r *Client) whetherItServes(ctx context.Context, c rueidis.Client, key string, whole bool) error {
	write := c.B().Set().Key(key).Value("1").Px(time.Minute).Build()
	if !whole {
		return c.Do(ctx, write).Error()
	}
	channel := r.Key("probe")
	replies := c.DoMulti(ctx,
		c.B().Eval().Script(r.probe).Numkeys(1).Key(key).Arg(channel).Build(),
		c.B().Evalsha().Sha1(r.probeSHA).Numkeys(1).Key(key).Arg(channel).Build(), write)
	for _, reply := range replies[:2] {
		text, err := reply.ToString()
		switch {
		case rueidis.IsRedisNil(err):
		case err != nil:
			return err
		default:
			command, reply, _ := strings.Cut(text, "\n")
			return &lackError{command, reply}
		}
	}
	return replies[2].Error()
}

// serves notes a probe that was answered. A node that returns is told first what came
// up while it was away.
func (r *Client) serves(ctx context.Context, client rueidis.Client, n *node, took time.Duration) {
	var returns, changed bool
	n.note(func(h *health) { returns, changed = h.answered(time.Now(), took, n.lack) })
	if returns {
		r.recover(ctx, n)
		n.note(func(h *health) { changed = h.returned(time.Now(), n.lack) || changed })
		if r.Available() {
			r.isReady()
		}
	}
	if changed {
		r.tell(ctx, n)
	}
	if n.used() {
		r.lookAtEviction(ctx, client, n)
	}
}

// away notes a probe that failed.
func (r *Client) away(n *node, err error) {
	why := causeOf(err, r.opt.Timeout, patience(r.opt.Timeout))
	if errors.Is(err, errUnassigned) {
		why = cause{NodeUnassigned, errUnassigned.Error(), err}
	}
	changed := false
	n.note(func(h *health) { changed = h.unanswered(time.Now(), why) })
	r.lookForSlots()
	if changed {
		r.tell(context.Background(), n)
	}
}

// tell logs one line for a change of a node's state.
func (r *Client) tell(ctx context.Context, n *node) {
	n.mu.Lock()
	name, quiet, up, why, reason := n.name, n.quiet, n.health.up, n.health.why, n.health.reason()
	n.quiet = false
	n.mu.Unlock()
	log := r.log.With("node", name)
	switch {
	case ctx.Err() != nil || r.closed.Load():
	case !up:
		attrs := []any{"state", why.state, "reason", reason}
		if why.detail != nil {
			attrs = append(attrs, "error", why.detail)
		}
		log.Warn("Redis is not available: working without it", attrs...)
	case why.state == NodeSlow:
		log.Warn("Redis is slow: raise REDIS_TIMEOUT, or bring Redis nearer", "state", why.state, "reason", reason)
	case why.state == NodeMute:
		log.Warn("Redis is used without PUBLISH", "state", why.state, "reason", reason, "error", why.detail)
	case !quiet:
		log.Info("Redis is available")
	}
}

// isTransient reports whether an error reply is about this moment only.
func isTransient(reply string) bool { return causeOfReply(reply, "", nil).state == NodeNotNow }

// sha1Of is the name that Redis gives a script.
func sha1Of(script string) string {
	sum := sha1.Sum([]byte(script)) //nolint:gosec // as EVALSHA wants it
	return hex.EncodeToString(sum[:])
}
