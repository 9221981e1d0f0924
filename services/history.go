package services

import (
	"context"
	"errors"

	"gatehouse/models"
)

// Restore writes the fields of a former version under a lock, as a new version. Its errors are those
// of Replace, and a *models.ValidationError if there is no such version.
func (p *Processes) Restore(ctx context.Context, user models.UserRef, id, token string, match *models.IfMatch, version int64) (process models.Process, degraded bool, err error) {
	guard, _, degraded, err := p.guard(ctx, user, id, token, match)
	if err != nil {
		return models.Process{}, degraded, err
	}
	was, err := p.store.Version(ctx, id, version)
	if errors.Is(err, models.ErrNotFound) {
		err = models.Invalid("version", "must be a version of the process")
		return models.Process{}, degraded, p.orNotFound(ctx, id, err)
	}
	if err != nil {
		return models.Process{}, degraded, err
	}
	guard.How = models.HowRestored
	process, err = p.store.UpdateProcess(ctx, id, user.ID, models.ProcessPatch{}.Apply(was), guard)
	return process, degraded, p.withStatus(ctx, err)
}
