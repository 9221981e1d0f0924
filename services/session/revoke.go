package session

import (
	"context"
	"fmt"

	"gatehouse/models"
)

// revokedChannel carries the name of the instance that wrote to the log, as a hint.
const revokedChannel = "revoked"

// Delete ends a token's session. models.ErrNotFound if there is none.
func (c *Cache) Delete(ctx context.Context, token string) error {
	if !isSessionToken(token) {
		return fmt.Errorf("end session: %w", models.ErrNotFound)
	}
	return c.DeleteByHash(ctx, hashToken(token))
}

// DeleteByHash ends the session with that Session.Hash. models.ErrNotFound if
// there is none.
func (c *Cache) DeleteByHash(ctx context.Context, hash string) error {
	if err := c.database.EndSessions(ctx, models.Ending{Hash: hash}); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	c.forget(hash)
	c.CatchUp(ctx)
	return nil
}

// DeleteByID ends the session of a user with that Session.ID. models.ErrNotFound
// if the user has none of that name.
func (c *Cache) DeleteByID(ctx context.Context, userID, id string) error {
	if err := c.database.EndSessions(ctx, models.Ending{UserID: userID, ID: id}); err != nil {
		return fmt.Errorf("end session %s of user %s: %w", id, userID, err)
	}
	c.CatchUp(ctx)
	return nil
}

// DeleteUser ends all sessions of a user, in a constant number of writes.
func (c *Cache) DeleteUser(ctx context.Context, userID string) error {
	if err := c.database.EndSessions(ctx, models.Ending{UserID: userID}); err != nil {
		return fmt.Errorf("end sessions of user %s: %w", userID, err)
	}
	c.CatchUp(ctx)
	return nil
}

// DeleteOthers ends all sessions of s's user but s.
func (c *Cache) DeleteOthers(ctx context.Context, s models.Session) error {
	if err := c.database.EndSessions(ctx, models.Ending{UserID: s.User.ID, Keep: s.Hash}); err != nil {
		return fmt.Errorf("end other sessions of user %s: %w", s.User.ID, err)
	}
	c.CatchUp(ctx)
	return nil
}

// DeleteAll ends everybody's sessions but keep.
func (c *Cache) DeleteAll(ctx context.Context, keep models.Session) error {
	if err := c.database.EndSessions(ctx, models.Ending{Everybody: true, Keep: keep.Hash}); err != nil {
		return fmt.Errorf("end all sessions: %w", err)
	}
	c.CatchUp(ctx)
	return nil
}

// CatchUp makes what was committed to the revocation log count here before it
// returns, and hints at it to the other instances. Call it after the store changed
// or deleted a user, or ended sessions. It cannot fail: if the log cannot be read, this instance asks
// the database for every session until it can.
func (c *Cache) CatchUp(ctx context.Context) {
	select {
	case c.hints <- struct{}{}: // first, so that they read while we do
	default: // the one waiting will say it
	}
	// The change is made: a caller that leaves does not unmake it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	defer cancel()
	ctx, done := c.opt.Budget(ctx)
	defer done()
	if err := c.follower.sync(ctx); err != nil {
		c.log.Warn("sessions are read from the database until the revocation log is", "error", err)
	}
}

// sendHints tells the other instances that the log has grown, so that they need
// not wait for their next poll. It is best effort.
func (c *Cache) sendHints(ctx context.Context) {
	for {
		select {
		case <-c.hints:
		case <-ctx.Done():
			return
		}
		_ = c.redis.Publish(ctx, revokedChannel, c.name) // they poll anyway
	}
}

// hinted polls if it was another instance that hinted.
func (c *Cache) hinted(from string) {
	if from != c.name {
		c.follower.wake()
	}
}
