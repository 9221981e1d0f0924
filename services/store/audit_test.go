package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/store"
)

func TestAudit(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		var entries []models.AuditEntry
		for i := range 7 {
			e := models.AuditEntry{
				At: start, Action: []string{models.AuditSignIn, models.AuditLockForced}[i%2], Actor: "ann@example.com",
				Target: fmt.Sprint("process:", i), IP: "2001:db8::1", RequestID: "r", Detail: "because",
			}
			check(t, s.AddAudit(t.Context(), e))
			entries = append(entries, e)
		}
		list := must(s.Audit(t.Context(), "", models.Page{Limit: 5}))
		if len(list.Items) != 5 || list.Items[0] != entries[6] || list.NextCursor == nil {
			t.Fatalf("first page is %+v", list)
		}
		list = must(s.Audit(t.Context(), "", models.Page{Limit: 5, Cursor: *list.NextCursor}))
		if len(list.Items) != 2 || list.Items[1] != entries[0] || list.NextCursor != nil {
			t.Fatalf("second page is %+v", list)
		}
		list = must(s.Audit(t.Context(), models.AuditLockForced, models.Page{}))
		if len(list.Items) != 3 || list.Items[0] != entries[5] {
			t.Fatalf("filtered page is %+v", list)
		}
		if list = must(s.Audit(t.Context(), "nonsense\x00\xff", models.Page{})); len(list.Items) != 0 || list.Items == nil {
			t.Fatalf("page of no action is %+v", list)
		}
		check(t, s.AddAudit(t.Context(), models.AuditEntry{Detail: "\x00\xff"}))
	})
}

// An entry of the audit is stored with what is done to a request for a lock. If nothing is done,
// there is none, and it waits for the next transaction.
func TestAuditOfRequestsForLocks(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		ann := newUser(t, s, "ann@example.com")
		p := must(s.CreateProcess(t.Context(), ann.ID, fields("one")))
		r := models.LockRequest{ID: "r", ProcessID: p.ID, By: models.UserRef{ID: ann.ID}, At: start, AnswerBy: start}
		for i, step := range []func(ctx context.Context) (bool, error){
			func(ctx context.Context) (bool, error) {
				_, created, err := s.AskForLock(ctx, r)
				return created, err
			},
			func(ctx context.Context) (bool, error) {
				r.State, r.Grant, r.FetchBy = models.RequestGiven, "grant", start
				_, changed, err := s.AnswerLockRequest(ctx, r)
				return changed, err
			},
			func(ctx context.Context) (bool, error) {
				return s.EndLockRequest(ctx, r.ID, models.RequestWithdrawn, start)
			},
		} {
			entries := func() int { return len(must(s.Audit(t.Context(), "", models.Page{})).Items) }
			for _, want := range []bool{true, false} {
				ctx, stored := s.WithAudit(t.Context(), models.AuditEntry{At: start})
				if done, err := step(ctx); err != nil || done != want || stored() != want || entries() != 2*i+1 {
					t.Fatalf("step %d: done %t, stored %t, want %t; %d entries, %v", i, done, stored(), want, entries(), err)
				}
				if !want {
					must(s.CreateUser(ctx, fmt.Sprint(i, "@example.com"), "hash", nil))
					if !stored() || entries() != 2*i+2 {
						t.Fatalf("step %d: the next transaction left %d entries", i, entries())
					}
				}
			}
		}
	})
}

// Old entries go, some at a time, whatever the clocks said when others were written;
// an index finds them.
func TestAuditRetention(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := openWith(t, store.Options{URL: w.url, AuditRetention: 48 * time.Hour})
		for i, age := range []time.Duration{-24 * 365, 49, 47, 50, 0, 1000} {
			check(t, s.AddAudit(t.Context(), models.AuditEntry{At: start.Add(-age * time.Hour), Detail: fmt.Sprint(i)}))
		}
		left := func() (details string) {
			for _, e := range must(s.Audit(t.Context(), "", models.Page{})).Items {
				details += e.Detail
			}
			return details
		}
		for _, want := range []struct {
			removed int
			left    string
		}{{2, "4210"}, {1, "420"}, {0, "420"}} {
			if n := must(s.CleanUp(t.Context(), start, 2)); n != want.removed || left() != want.left {
				t.Fatalf("%d removed, left are %s, want %+v", n, left(), want)
			}
		}
	})
}
