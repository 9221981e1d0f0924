package store_test

import (
	"fmt"
	"testing"

	"gatehouse/models"
)

func TestAudit(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		s := open(t, url)
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
