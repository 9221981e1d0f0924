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

const (
	probeInterval = 250 * time.Millisecond
	probeSoon     = 50 * time.Millisecond // after a probe or a call that failed
	fullProbes    = 240                   // one of so many probes tries every command, if none failed
)

// OnRecover registers fn to run each time a node of Redis answers again, before it counts as
// available: fn sends what other calls must not overtake. Redis calls made with fn's ctx go to
// the node that returns; those to a node that is still away return ErrNotSent, and fn runs
// again when that one returns, so fn keeps what it could not send. Only one fn runs at a time.
// Its ctx ends after ten Timeouts.
func (r *Client) OnRecover(fn func(context.Context)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onRecover = append(r.onRecover, fn)
}

type recoveryKey struct{}

// recovering returns the node whose return ctx belongs to, nil if ctx is not that of a hook.
func recovering(ctx context.Context) *node {
	n, _ := ctx.Value(recoveryKey{}).(*node)
	return n
}

func (r *Client) runHooks(ctx context.Context, n *node) {
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

// connect connects, trying again until ctx ends, and then probes the nodes.
func (r *Client) connect(ctx context.Context) {
	first := r.nodes.Load().all[0]
	for {
		rdb, err := rueidis.NewClient(r.calling)
		if rdb != nil {
			r.shared.Store(&rdb)
			if rdb.Mode() == rueidis.ClientModeCluster {
				r.followCluster(ctx, rdb, first)
			} else {
				r.probeNode(ctx, rdb, first)
			}
			return
		}
		if ctx.Err() == nil {
			r.probeFailed(first, err)
		}
		select {
		case <-time.After(probeInterval):
		case <-ctx.Done():
			return
		}
	}
}

// probeNode probes a node every 250 ms, and 50 ms after a call that failed, until ctx ends.
func (r *Client) probeNode(ctx context.Context, rdb rueidis.Client, n *node) {
	for round := 0; ; round++ {
		if rdb.Mode() == rueidis.ClientModeSentinel {
			n.rename(slices.Collect(maps.Keys(rdb.Nodes())))
		}
		start := time.Now()
		err := r.probeOnce(ctx, rdb, n, round%fullProbes == 0)
		took := time.Since(start)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.probeFailed(n, err)
		} else {
			r.probeAnswered(ctx, rdb, n, took)
		}
		pause := probeInterval
		if n.isUp() && (err != nil || n.shut.Load()) { // it is not known yet whether it is away
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

// probeOnce probes a node. While it waits, each Timeout and a half that passes counts as a
// failure: a round trip that takes a little too long does not.
func (r *Client) probeOnce(ctx context.Context, rdb rueidis.Client, n *node, full bool) error {
	n.mu.Lock()
	key := n.key
	full = n.suspect.Swap(false) || full || !n.health.up || n.lack.state != ""
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience(r.opt.Timeout))
	defer cancel()
	late := time.NewTicker(r.opt.Timeout * 3 / 2)
	defer late.Stop()
	done := make(chan error, 1)
	go func() {
		lost := r.conn.lost.Load()
		err := r.tryCommands(ctx, rdb, key, full)
		if answered(err) && rdb.Mode() != rueidis.ClientModeCluster {
			r.conn.succeeded(lost)
		}
		done <- err
	}()
	for {
		select {
		case err := <-done:
			return r.recordLack(n, err, full)
		case <-late.C:
			n.update((*health).probeLate)
		case <-ctx.Done(): // rueidis may still dial
			select {
			case err := <-done:
				return r.recordLack(n, err, full)
			default:
				return ctx.Err()
			}
		}
	}
}

// recordLack records the command that a full probe missed, if the node serves without it.
func (r *Client) recordLack(n *node, err error, full bool) error {
	var lacks *lackError
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case errors.As(err, &lacks) && lacks.command == "PUBLISH" && !isTransient(lacks.reply):
		n.lack = cause{NodeMute, "it does not let us PUBLISH: other instances hear of locks and ended sessions later", err}
		return nil
	case err == nil && full:
		n.lack = cause{}
	}
	return err
}

// tryCommands writes a key, so that a full or read-only server counts as away. A full probe
// runs every command that the scripts use. A server that runs no scripts, or does not permit
// its user one of the commands, then counts as away, too. It sends the script by its text and
// by its name: the permission for one is not that for the other.
func (r *Client) tryCommands(ctx context.Context, rdb rueidis.Client, key string, full bool) error {
	write := rdb.B().Set().Key(key).Value("1").Px(time.Minute).Build()
	if !full {
		return rdb.Do(ctx, write).Error()
	}
	channel := r.Key("probe")
	replies := rdb.DoMulti(ctx,
		rdb.B().Eval().Script(probeScript).Numkeys(1).Key(key).Arg(channel).Build(),
		rdb.B().Evalsha().Sha1(r.probeSHA).Numkeys(1).Key(key).Arg(channel).Build(), write)
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

// probeAnswered records a probe that was answered. The hooks run before a node that returns
// is used.
func (r *Client) probeAnswered(ctx context.Context, rdb rueidis.Client, n *node, took time.Duration) {
	var returns, changed bool
	n.update(func(h *health) { returns, changed = h.answered(time.Now(), took, n.lack) })
	if returns {
		r.runHooks(ctx, n)
		n.update(func(h *health) { changed = h.returned(time.Now(), n.lack) || changed })
		if r.Available() {
			r.markReady()
		}
	}
	if changed {
		r.logChange(ctx, n)
	}
	if n.isUp() {
		r.checkEviction(ctx, rdb, n)
	}
}

// probeFailed records a probe that failed.
func (r *Client) probeFailed(n *node, err error) {
	why := causeOf(err, r.opt.Timeout, patience(r.opt.Timeout))
	if errors.Is(err, errUnassigned) {
		why = cause{NodeUnassigned, errUnassigned.Error(), err}
	}
	changed := false
	n.update(func(h *health) { changed = h.unanswered(time.Now(), why) })
	r.refreshSlots()
	if changed {
		r.logChange(context.Background(), n)
	}
}

// logChange writes one line about a change of a node's state.
func (r *Client) logChange(ctx context.Context, n *node) {
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
