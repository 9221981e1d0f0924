package services

import (
	"context"
	"errors"
	"strings"
	"time"

	"gatehouse/models"
)

// Refused records why a request of a user was refused. Without a user or a request id it does
// nothing: nobody could ask for it.
func (r *Recorder) Refused(refusal models.Refusal) {
	if refusal.User.ID != "" && refusal.RequestID != "" {
		r.refusals.add(refusal)
		r.added()
	}
}

// Refusal returns why a request of the user was refused, or of any user if everybodys is set. current
// is the process as it was then, nil if the answer did not say or its history is gone. Errors are
// models.ErrNotFound if there is no refusal of the last 24 h, and models.ErrUnavailable if the
// database cannot be asked.
func (r *Recorder) Refusal(ctx context.Context, user models.UserRef, everybodys bool, requestID string) (refusal models.Refusal, current *models.Process, err error) {
	r.Flush(ctx)
	owner := user.ID
	if everybodys {
		owner = ""
	}
	refusal, err = r.store.Refusal(ctx, owner, requestID, time.Now().Add(-models.KeepRefusals))
	process, isProcess := strings.CutPrefix(refusal.Resource, Resource(""))
	if err != nil || refusal.Version == 0 || !isProcess {
		return refusal, nil, err
	}
	was, err := r.store.Version(ctx, process, refusal.Version)
	switch {
	case errors.Is(err, models.ErrNotFound):
		return refusal, nil, nil
	case err != nil:
		return refusal, nil, err
	}
	return refusal, &was, nil
}
