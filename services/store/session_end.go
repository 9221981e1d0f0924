package store

import (
	"context"
	"database/sql"

	"gatehouse/models"
)

// EndSession ends the session with this hash, with one entry in the revocation
// log. models.ErrNotFound if there is none.
func (s *Store) EndSession(ctx context.Context, hash string) error {
	return s.endOne(ctx, "end session", `hash = $1`, clean(hash))
}

// EndSessionByID ends the session of the user with this public id, with one
// entry in the revocation log. models.ErrNotFound if the user has none such.
func (s *Store) EndSessionByID(ctx context.Context, userID, id string) error {
	user, err := parseID(userID)
	if err != nil {
		return failed("end session", err)
	}
	return s.endOne(ctx, "end session of user "+userID, `user_id = $1 AND id = $2 AND`+unrevoked, user, clean(id))
}

func (s *Store) endOne(ctx context.Context, op, which string, args ...any) (err error) {
	ctx, done := s.writing(ctx)
	defer done(&err)
	return failed(op, s.transact(ctx, func(tx *sql.Tx) error {
		var ended models.Revocation
		err := tx.QueryRowContext(ctx, `DELETE FROM sessions WHERE `+which+` RETURNING hash`, args...).Scan(&ended.SessionHash)
		if err != nil {
			return orAnswer(err, models.ErrNotFound)
		}
		return s.log(ctx, tx, ended)
	}))
}

// EndUserSessions ends all sessions of the user, however many, with the same
// few writes: the rows stay, without effect, until CleanUp. models.ErrNotFound
// if there is no such user.
func (s *Store) EndUserSessions(ctx context.Context, userID string) (err error) {
	user, err := parseID(userID)
	if err != nil {
		return failed("end sessions", err)
	}
	ctx, done := s.writing(ctx)
	defer done(&err)
	return failed("end sessions of user "+userID, s.transact(ctx, func(tx *sql.Tx) error {
		if _, err := nextEpoch(ctx, tx, user); err != nil {
			return err
		}
		return s.log(ctx, tx, models.Revocation{UserID: userID})
	}))
}

// EndOtherSessions ends all sessions of the user but the one to keep.
// models.ErrNotFound, and nothing is done, if that one has itself been ended.
func (s *Store) EndOtherSessions(ctx context.Context, userID, keepHash string) (err error) {
	user, err := parseID(userID)
	if err != nil {
		return failed("end sessions", err)
	}
	ctx, done := s.writing(ctx)
	defer done(&err)
	return failed("end other sessions of user "+userID, s.transact(ctx, func(tx *sql.Tx) error {
		epoch, err := nextEpoch(ctx, tx, user)
		if err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, `UPDATE sessions SET epoch = $3
			 WHERE hash = $1 AND user_id = $2 AND epoch = $4 AND era = (SELECT era FROM revocation_head)`,
			clean(keepHash), user, epoch, epoch-1)
		if err := affected(result, err, models.ErrNotFound); err != nil {
			return err
		}
		return s.log(ctx, tx, models.Revocation{UserID: userID})
	}))
}

// nextEpoch adds 1 to the user's epoch and returns it.
func nextEpoch(ctx context.Context, tx querier, user int64) (int64, error) {
	var epoch int64
	err := tx.QueryRowContext(ctx, `UPDATE users SET epoch = epoch + 1 WHERE id = $1 RETURNING epoch`, user).Scan(&epoch)
	return epoch, orAnswer(err, models.ErrNotFound)
}

// EndAllSessions ends everybody's sessions but the one to keep ("" keeps none),
// with one entry in the revocation log and the same few writes however many
// there are. models.ErrNotFound, and nothing is done, if the one to keep has
// itself been ended.
func (s *Store) EndAllSessions(ctx context.Context, keepHash string) (err error) {
	ctx, done := s.writing(ctx)
	defer done(&err)
	return failed("end all sessions", s.transact(ctx, func(tx *sql.Tx) error {
		// The row is moved first, to keep the order in which locks are taken. If
		// another call ends everybody in between, era grows by more, and the kept
		// session has been ended by that call.
		if keepHash != "" {
			result, err := tx.ExecContext(ctx, `UPDATE sessions SET era = era + 1 WHERE hash = $1 AND`+unrevoked, clean(keepHash))
			if err := affected(result, err, models.ErrNotFound); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `UPDATE revocation_head SET era = era + 1`); err != nil {
			return err
		}
		return s.log(ctx, tx, models.Revocation{Everybody: true})
	}))
}

// ChangePassword stores the new password hash, ends all of the user's sessions
// and stores next as the only one, with one entry in the revocation log, all or
// nothing. next takes the place of the session with its ID, with the data and
// version that this has then, whatever next says: models.ErrNotFound if that has
// ended, so a change under way revives nothing. epoch was read in the same row as
// the password that was checked; models.ErrStale if it is no longer the user's, or
// the user is disabled or gone.
func (s *Store) ChangePassword(ctx context.Context, userID string, epoch int64, newHash string, next models.Session) (err error) {
	user, err := parseID(userID)
	if err != nil {
		return failed("change password", models.ErrStale)
	}
	ctx, done := s.writing(ctx)
	defer done(&err)
	return failed("change password of user "+userID, s.transact(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx,
			`UPDATE users SET password_hash = $3, epoch = epoch + 1 WHERE id = $1 AND epoch = $2 AND NOT disabled`, user, epoch, newHash)
		if err := affected(result, err, models.ErrStale); err != nil {
			return err
		}
		// The data comes from here: what somebody stored since the caller read it was acknowledged.
		err = tx.QueryRowContext(ctx, `DELETE FROM sessions WHERE user_id = $1 AND id = $2 AND epoch = $3
			AND era = (SELECT era FROM revocation_head) RETURNING data, version`, user, clean(next.ID), epoch).Scan(&next.Data, &next.Version)
		if err != nil {
			return orAnswer(err, models.ErrNotFound)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE user_id = $1`, user); err != nil {
			return err
		}
		next.Epoch = epoch + 1
		if err := insertSession(ctx, tx, &user, next); err != nil {
			return err
		}
		return s.log(ctx, tx, models.Revocation{UserID: userID})
	}))
}
