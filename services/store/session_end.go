package store

import (
	"context"
	"errors"
	"fmt"

	"gatehouse/models"
)

var errNoneNamed = fmt.Errorf("no sessions are named: %w", models.ErrNotFound)

// EndSessions ends sessions before their time, with one entry in the revocation log and as
// many writes for a million of them as for one: the rows of a user's, or of all users,
// stay without effect until CleanUpSessions. models.ErrNotFound, and nothing is done, if
// there is no such session or user, or the session to keep has itself been ended.
func (s *Store) EndSessions(ctx context.Context, which models.Ending) error {
	var user int64
	if which.UserID != "" {
		var err error
		if user, err = parseID(which.UserID); err != nil {
			return failed("end sessions", err)
		}
	}
	return failed("end sessions", s.transact(ctx, func(ctx context.Context, q querier) error {
		var ended models.Revocation
		var err error
		switch {
		case which.Hash != "":
			ended.SessionHash, err = endOne(ctx, q, `hash = $1`, clean(which.Hash))
		case which.ID != "":
			live := `user_id = $1 AND id = $2 AND` + unrevoked
			ended.SessionHash, err = endOne(ctx, q, live, user, clean(which.ID))
			if errors.Is(err, models.ErrNotFound) { // see unrevoked
				ended.SessionHash, err = endOne(ctx, q, live, user, clean(which.ID))
			}
		case user != 0:
			ended.UserID, err = which.UserID, endUser(ctx, q, user, which.Keep)
		case which.Everybody:
			ended.Everybody, err = true, endAll(ctx, q, which.Keep)
		default:
			err = errNoneNamed
		}
		if err != nil {
			return err
		}
		return s.log(ctx, q, ended)
	}))
}

func endOne(ctx context.Context, tx querier, which string, args ...any) (hash string, err error) {
	err = tx.QueryRowContext(ctx, `DELETE FROM sessions WHERE `+which+` RETURNING hash`, args...).Scan(&hash)
	return hash, orAnswer(err, models.ErrNotFound)
}

func endUser(ctx context.Context, tx querier, user int64, keep string) error {
	epoch, err := nextEpoch(ctx, tx, user)
	if err != nil || keep == "" {
		return err
	}
	result, err := tx.ExecContext(ctx, `UPDATE sessions SET epoch = $3
		 WHERE hash = $1 AND user_id = $2 AND epoch = $4 AND era = (SELECT era FROM revocation_head)`,
		clean(keep), user, epoch, epoch-1)
	return affected(result, err, models.ErrNotFound)
}

// nextEpoch adds 1 to the user's epoch and returns it.
func nextEpoch(ctx context.Context, tx querier, user int64) (int64, error) {
	var epoch int64
	err := tx.QueryRowContext(ctx, `UPDATE users SET epoch = epoch + 1 WHERE id = $1 RETURNING epoch`, user).Scan(&epoch)
	return epoch, orAnswer(err, models.ErrNotFound)
}

func endAll(ctx context.Context, tx querier, keep string) error {
	// The row is moved first, to keep the order in which locks are taken. If another call
	// ends all sessions in between, era grows by more, and the kept session has been ended by
	// that call.
	if keep != "" {
		result, err := tx.ExecContext(ctx, `UPDATE sessions SET era = era + 1 WHERE hash = $1 AND`+unrevoked, clean(keep))
		if err := affected(result, err, models.ErrNotFound); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `UPDATE revocation_head SET era = era + 1`)
	return err
}

// ChangePassword stores the new password hash, ends all of the user's sessions
// and stores next as the only one, with one entry in the revocation log, all or
// nothing. next takes the place of the session with its ID, with the data and
// version that this has then, whatever next says: models.ErrNotFound if that has
// ended, so a change under way revives nothing. epoch was read in the same row as
// the password that was checked; models.ErrStale if it is no longer the user's, or
// the user is disabled or gone.
func (s *Store) ChangePassword(ctx context.Context, userID string, epoch int64, newHash string, next models.Session) error {
	user, err := parseID(userID)
	if err != nil {
		return failed("change password", models.ErrStale)
	}
	return failed("change password of user "+userID, s.transact(ctx, func(ctx context.Context, q querier) error {
		result, err := q.ExecContext(ctx,
			`UPDATE users SET password_hash = $3, epoch = epoch + 1 WHERE id = $1 AND epoch = $2 AND NOT disabled`, user, epoch, newHash)
		if err := affected(result, err, models.ErrStale); err != nil {
			return err
		}
		// The data comes from the row: a write since the caller read it was acknowledged.
		err = q.QueryRowContext(ctx, `DELETE FROM sessions WHERE user_id = $1 AND id = $2 AND epoch = $3
			AND era = (SELECT era FROM revocation_head) RETURNING data, version`, user, clean(next.ID), epoch).Scan(&next.Data, &next.Version)
		if err != nil {
			return orAnswer(err, models.ErrNotFound)
		}
		if _, err := q.ExecContext(ctx, `DELETE FROM sessions WHERE user_id = $1`, user); err != nil {
			return err
		}
		next.Epoch = epoch + 1
		if err := insertSession(ctx, q, &user, next); err != nil {
			return err
		}
		return s.log(ctx, q, models.Revocation{UserID: userID})
	}))
}
