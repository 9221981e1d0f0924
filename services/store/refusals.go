package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"gatehouse/models"
)

// refusalBody is what is kept as JSON.
type refusalBody struct {
	Detail  string          `json:"detail"`
	Holder  json.RawMessage `json:"holder,omitempty"`
	EndedBy json.RawMessage `json:"endedBy,omitempty"`
}

// AddRefusals stores refusals, all or none. Of two with the same user and request the later one
// stays. A refused save also becomes part of the history of its process, those of one user in a row
// as one entry, which is about the last of them.
func (s *Store) AddRefusals(ctx context.Context, refusals []models.Refusal) error {
	// In one order, so that no two instances that store the same ones wait for each other.
	byKey, saves := slices.Clone(refusals), refusedSaves(refusals)
	slices.SortStableFunc(byKey, func(a, b models.Refusal) int {
		return cmp.Or(cmp.Compare(a.RequestID, b.RequestID), cmp.Compare(a.User.ID, b.User.ID))
	})
	slices.SortStableFunc(saves, func(a, b refusedSave) int { return cmp.Compare(a.process, b.process) })
	return failed("write refusals", s.transact(ctx, func(ctx context.Context, q querier) error {
		for _, r := range byKey {
			if err := insertRefusal(ctx, q, r); err != nil {
				return err
			}
		}
		for _, save := range saves {
			if err := noteRefusedSave(ctx, q, save); err != nil {
				return err
			}
		}
		return nil
	}))
}

// refusedSave is a refusal for the history of a process.
type refusedSave struct {
	models.Refusal
	process int64
}

func refusedSaves(refusals []models.Refusal) (saves []refusedSave) {
	for _, r := range refusals {
		if process, err := parseID(strings.TrimPrefix(r.Resource, "process:")); err == nil && r.Save {
			saves = append(saves, refusedSave{r, process})
		}
	}
	return saves
}

func insertRefusal(ctx context.Context, tx querier, r models.Refusal) error {
	body, err := json.Marshal(refusalBody{r.Detail, r.Holder, r.EndedBy})
	if err != nil {
		return fmt.Errorf("refusal %s: %w", r.RequestID, err)
	}
	_, err = tx.ExecContext(ctx, `
		INSERT INTO refusals (request_id, user_id, at, status, type, resource, version, body) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (request_id, user_id) DO UPDATE
		   SET at = excluded.at, status = excluded.status, type = excluded.type, resource = excluded.resource,
		       version = excluded.version, body = excluded.body`,
		clean(r.RequestID), nullID(r.User.ID), r.At.UnixMicro(), r.Status, r.Type, clean(r.Resource),
		sql.NullInt64{Int64: r.Version, Valid: r.Version != 0}, string(body))
	return err
}

// Refusal returns the refusal of a request of the user, userID "" is anybody's, not older than
// since; models.ErrNotFound if there is none.
func (s *Store) Refusal(ctx context.Context, userID, requestID string, since time.Time) (models.Refusal, error) {
	user := nullID(userID)
	if userID != "" && !user.Valid {
		return models.Refusal{}, failed("read refusal", models.ErrNotFound)
	}
	ctx, done := s.read.turn(ctx)
	defer done()
	var r models.Refusal
	var owner, at, version int64
	var text string
	err := s.read.QueryRowContext(ctx, `
		SELECT request_id, user_id, at, status, type, resource, COALESCE(version, 0), body FROM refusals
		 WHERE request_id = $1 AND user_id = COALESCE($2, user_id) AND at >= $3 ORDER BY at DESC LIMIT 1`,
		clean(requestID), user, since.UnixMicro()).Scan(&r.RequestID, &owner, &at, &r.Status, &r.Type, &r.Resource, &version, &text)
	if err != nil {
		return models.Refusal{}, failed("read refusal", orAnswer(err, models.ErrNotFound))
	}
	var body refusalBody
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		return models.Refusal{}, failed("read refusal", err)
	}
	r.User.ID, r.At, r.Version = formatID(owner), micros(at), version
	r.Detail, r.Holder, r.EndedBy = body.Detail, body.Holder, body.EndedBy
	return r, nil
}
