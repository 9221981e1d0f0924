package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"gatehouse/models"
)

// keepLockEnds is how many ends of locks CleanUp leaves, however young they are.
const keepLockEnds = 200_000

// AddLockEnds stores how grants ended, all or none. The first end of a grant stays, but for
// models.LockExpired: its holder's instance may have brought the lock back.
func (s *Store) AddLockEnds(ctx context.Context, ends ...models.EndedLock) error {
	// In one order, so that no two instances that store the same ones wait for each other.
	ends = slices.SortedFunc(slices.Values(ends), func(a, b models.EndedLock) int { return cmp.Compare(a.Grant, b.Grant) })
	if len(ends) == 1 {
		return failed("write the end of a lock", s.change(ctx, func(ctx context.Context, q querier) error { return insertLockEnd(ctx, q, ends[0]) }))
	}
	return failed("write the ends of locks", s.transact(ctx, func(ctx context.Context, q querier) error {
		for _, ended := range ends {
			if err := insertLockEnd(ctx, q, ended); err != nil {
				return err
			}
		}
		return nil
	}))
}

func insertLockEnd(ctx context.Context, q querier, e models.EndedLock) error {
	_, err := q.ExecContext(ctx, `
		INSERT INTO lock_ends (grant_id, resource, how, by_id, by_email, reason, at, holder_id, holder_email, granted_at, fence)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (grant_id) DO UPDATE SET how = excluded.how, by_id = excluded.by_id, by_email = excluded.by_email,
		       reason = excluded.reason, at = excluded.at, holder_id = COALESCE(excluded.holder_id, lock_ends.holder_id),
		       holder_email = COALESCE(excluded.holder_email, lock_ends.holder_email),
		       granted_at = COALESCE(excluded.granted_at, lock_ends.granted_at), fence = COALESCE(excluded.fence, lock_ends.fence)
		 WHERE lock_ends.how = 'expired'`,
		clean(e.Grant), clean(e.Resource), e.End.How, nullID(e.End.By.ID), clean(e.End.By.Email), clean(e.End.Reason), e.End.At.UnixMicro(),
		nullID(e.Holder.UserID), nullText(e.Holder.Email), nullTime(e.Holder.Since), e.Fence)
	return err
}

// LockEnds returns how the grants of a resource's lock ended since a time, the latest first, and at
// most limit of them.
func (s *Store) LockEnds(ctx context.Context, resource string, since time.Time, limit int) ([]models.EndedLock, error) {
	ctx, done := s.read.turn(ctx)
	defer done()
	ends, err := collect(ctx, s.read, func(row scanner) (models.EndedLock, error) {
		ended := models.EndedLock{Resource: resource}
		end, holder := &ended.End, &ended.Holder
		var by, at, id, granted int64
		err := row.Scan(&ended.Grant, &end.How, &by, &end.By.Email, &end.Reason, &at, &id, &holder.Email, &granted, &ended.Fence)
		end.By.ID, holder.UserID, end.At = idOrNone(by), idOrNone(id), micros(at)
		if granted != 0 {
			holder.Since = micros(granted)
		}
		return ended, err
	}, `SELECT grant_id, how, COALESCE(by_id, 0), by_email, reason, at, COALESCE(holder_id, 0), COALESCE(holder_email, ''), COALESCE(granted_at, 0), fence
		  FROM lock_ends WHERE resource = $1 AND at > $2 ORDER BY at DESC LIMIT $3`, clean(resource), since.UnixMicro(), limit)
	return ends, failed("read the ends of the locks of "+resource, err)
}

// LockEnd returns how a grant ended; models.ErrNotFound if that is not stored.
func (s *Store) LockEnd(ctx context.Context, grant string) (models.LockEnd, error) {
	ctx, done := s.read.atOnce(ctx)
	defer done()
	ended, err := readLockEnd(ctx, s.read, grant, "")
	return ended.End, failed("read the end of a lock", orAnswer(err, models.ErrNotFound))
}

// readLockEnd reads the end of a grant, if that meets a condition.
func readLockEnd(ctx context.Context, q querier, grant, condition string) (models.EndedLock, error) {
	ended := models.EndedLock{Grant: grant}
	end := &ended.End
	var by, at int64
	err := q.QueryRowContext(ctx, `SELECT resource, how, COALESCE(by_id, 0), by_email, reason, at FROM lock_ends WHERE grant_id = $1`+condition,
		clean(grant)).Scan(&ended.Resource, &end.How, &by, &end.By.Email, &end.Reason, &at)
	end.By.ID, end.At = idOrNone(by), micros(at)
	return ended, err
}

// LastActivity returns when the process was last written under a grant, or a draft of it was saved
// by the user, zero if neither was; and how many requests for its lock are pending.
func (s *Store) LastActivity(ctx context.Context, processID, userID, grant string) (last time.Time, asked int, err error) {
	n, err := parseID(processID)
	if err != nil {
		return last, 0, failed("read the last activity", err)
	}
	ctx, done := s.read.turn(ctx)
	defer done()
	var at int64
	err = s.read.QueryRowContext(ctx, `
		SELECT COALESCE(MAX(at), 0), (SELECT COUNT(*) FROM lock_requests WHERE process_id = $1 AND pending) FROM (
			SELECT updated_at AS at FROM processes WHERE id = $1 AND last_grant = $2
			UNION ALL SELECT saved_at FROM drafts WHERE process_id = $1 AND user_id = $3) AS signs`,
		n, clean(grant), nullID(userID)).Scan(&at, &asked)
	if err == nil && at != 0 {
		last = micros(at)
	}
	return last, asked, failed("read the last activity in process "+processID, err)
}
