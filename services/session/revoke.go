package session

import (
	"context"
	"fmt"
	"time"

	"gatehouse/models"
)

const (
	hintChannel = "revoked"       // carries the name of the instance that wrote to the log
	syncTimeout = 2 * time.Second // to make a committed change count here
)

// Delete ends a token's session, as End does. models.ErrNotFound if there is none.
func (c *Cache) Delete(ctx context.Context, token string) error {
	if !isToken(token) {
		return fmt.Errorf("end session: %w", models.ErrNotFound)
	}
	return c.End(ctx, models.Ending{Hash: hashToken(token)})
}

// DeleteUser ends all sessions of a user, as End does. models.ErrNotFound if there is no such
// user.
func (c *Cache) DeleteUser(ctx context.Context, userID string) error {
	return c.End(ctx, models.Ending{UserID: userID})
}

// End ends sessions before their time. It returns when that is committed and counts in this
// instance; on the others it counts within 2 s. models.ErrNotFound, and none is ended, if there
// is none, or the one to keep has been ended itself. models.ErrUnavailable leaves open whether
// it was committed; ending again is harmless.
func (c *Cache) End(ctx context.Context, which models.Ending) error {
	if err := c.database.EndSessions(ctx, which); err != nil {
		return fmt.Errorf("end sessions: %w", err)
	}
	c.Sync(ctx)
	return nil
}

// Sync makes what was committed to the revocation log count here before it returns, and sends a
// hint to the other instances. Call it after a transaction of your own wrote to the log, as a
// change of a user's rights does. It cannot fail: if the log cannot be read, this instance asks
// the database for every session until it can.
func (c *Cache) Sync(ctx context.Context) {
	select {
	case c.hints <- struct{}{}: // first, so that the others read at the same time
	default: // one is about to be sent
	}
	// The change is made: a caller that leaves does not unmake it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), syncTimeout)
	defer cancel()
	ctx, done := c.opt.Budget(ctx)
	defer done()
	if err := c.follower.sync(ctx); err != nil {
		c.log.Warn("sessions are read from the database until the revocation log is", "error", err)
	}
}

// sendHints publishes that the log has grown, so that the other instances need not wait for
// their next poll.
func (c *Cache) sendHints(ctx context.Context) {
	for {
		select {
		case <-c.hints:
		case <-ctx.Done():
			return
		}
		_ = c.redis.Publish(ctx, hintChannel, c.name) // they poll anyway
	}
}

func (c *Cache) receiveHint(from string) {
	if from != c.name {
		c.follower.wake()
	}
}
