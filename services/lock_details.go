package services

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"gatehouse/models"
)

const (
	waitersShown = 100
	endsShown    = 50
)

// LockDetails is a held lock as its observers see it.
type LockDetails struct {
	models.LockStatus // ActiveAt knows of writes to a process, too, and Waiting of those who asked
	// Queue is who waits, first come first: at most 100 requests, of all instances. Degraded, it is
	// those that wait at this instance.
	Queue []models.LockWaiter
	// History is the grants that ended in the last 24 hours, the latest first: at most 50, without
	// those of quick updates. A Recorder writes the ends, up to a second late.
	History []models.EndedLock
}

// LockDetails returns a lock, who waits for it, and how it went lately. The resource may be
// another's than a process's; then nothing is known of writes. Errors:
//
//   - models.ErrNotFound: it is not locked; Degraded, this instance knows of no lock, as in Status,
//     which says then that it is free,
//   - models.ErrUnavailable: without the database, and without Redis where locks are closed then.
//
// With an error, too, Degraded says whether it was made without Redis.
func (p *Processes) LockDetails(ctx context.Context, resource string) (LockDetails, error) {
	status, queue, err := p.locks.Inspect(ctx, resource, waitersShown)
	if err == nil && !status.Held {
		err = fmt.Errorf("lock of %s: %w", resource, models.ErrNotFound)
	}
	details := LockDetails{LockStatus: status, Queue: queue}
	if err != nil {
		return details, err
	}
	if id, ok := strings.CutPrefix(resource, Resource("")); ok {
		active, asked, err := p.activeAt(ctx, id, status)
		switch {
		case err == nil:
			details.ActiveAt = active
			details.Waiting += asked
		case !errors.Is(err, models.ErrNotFound): // a name that no process can have
			return details, err
		}
	}
	details.History, err = p.store.LockEnds(ctx, resource, time.Now().Add(-models.KeepLockEnds), endsShown)
	return details, err
}
