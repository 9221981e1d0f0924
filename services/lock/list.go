package lock

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"

	"gatehouse/models"
)

// cursor is the last lock of a page: its shard, the end of its lease, and
// its fence.
type cursor struct {
	Shard int   `json:"s"`
	End   int64 `json:"e"`
	Fence int64 `json:"f"`
}

// List returns the locks held now, at most page.Limit of them (50 if that is zero or less), in an
// order that is stable enough to page through: a lock that is extended meanwhile may come twice, or
// not at all if that made its time left shorter; no other that stays is left out. Without Redis
// (open) it is what this instance knows, on one page. A wrong cursor is models.ErrBadCursor.
func (l *Locker) List(ctx context.Context, page models.Page) (locks models.List[models.LockStatus], degraded bool, err error) {
	after, err := readCursor(page.Cursor)
	if err != nil {
		return locks, false, err
	}
	if page.Limit <= 0 {
		page.Limit = models.DefaultLimit
	}
	shards := make([][]listedLock, shardCount)
	shards[after.Shard], err = l.listShard(ctx, after, page.Limit+1)
	group, groupCtx := errgroup.WithContext(ctx)
	if missing := page.Limit + 1 - len(shards[after.Shard]); err == nil && missing > 0 {
		// The others are asked at once: a page is at most two round trips.
		for shard := after.Shard + 1; shard < shardCount; shard++ {
			group.Go(func() error {
				var err error
				shards[shard], err = l.listShard(groupCtx, cursor{Shard: shard}, missing)
				return err
			})
		}
	}
	if err := errors.Join(err, group.Wait()); err != nil {
		if !l.mayDegrade(err) {
			return locks, false, fmt.Errorf("list locks: %w", err)
		}
		now := time.Now()
		for _, known := range l.table.living(now, anyLock) {
			locks.Items = append(locks.Items, known.status(now))
		}
		slices.SortFunc(locks.Items, func(a, b models.LockStatus) int { return cmp.Compare(a.Resource, b.Resource) })
		return locks, true, nil
	}
	for shard, found := range shards {
		for _, item := range found {
			if len(locks.Items) == page.Limit {
				locks.NextCursor = after.text()
				return locks, false, nil
			}
			locks.Items = append(locks.Items, item.LockStatus)
			after = cursor{Shard: shard, End: item.end, Fence: *item.Fence}
		}
	}
	return locks, false, nil
}

type listedLock struct {
	models.LockStatus
	end int64
}

func (l *Locker) listShard(ctx context.Context, after cursor, limit int) ([]listedLock, error) {
	msg, err := l.redis.Exec(ctx, l.scripts.list, l.keys.in(after.Shard, "")[:3], []string{
		strconv.Itoa(limit), strconv.FormatInt(after.End, 10), strconv.FormatInt(after.Fence, 10),
	})
	if err != nil {
		return nil, err
	}
	fields, err := msg.ToArray()
	if err != nil && !rueidis.IsRedisNil(err) {
		return nil, fmt.Errorf("%w: %w", models.ErrUnavailable, err)
	}
	found := make([]listedLock, 0, len(fields)/4)
	for f := range slices.Chunk(fields, 4) {
		text, _ := f[0].ToString()
		end, _ := f[1].AsInt64()
		remaining, _ := f[2].AsInt64()
		waiting, _ := f[3].AsInt64()
		g, ok := readRecord(text)
		if !ok {
			continue
		}
		r := reply{
			record: g, waiting: int(waiting), remaining: time.Duration(remaining) * time.Millisecond, at: l.opt.Clock(),
		}
		found = append(found, listedLock{end: end, LockStatus: r.status(g.resource)})
	}
	return found, nil
}

func (c cursor) text() *string {
	doc, _ := json.Marshal(c) // a struct of numbers: cannot fail
	text := base64.RawURLEncoding.EncodeToString(doc)
	return &text
}

func readCursor(text string) (cursor, error) {
	var c cursor
	if text == "" {
		return c, nil
	}
	doc, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || json.Unmarshal(doc, &c) != nil || c.Shard < 0 || c.Shard >= shardCount || c.Fence <= 0 || c.End <= 0 {
		return c, fmt.Errorf("locks: %w", models.ErrBadCursor)
	}
	return c, nil
}
