package services_test

import (
	"testing"
	"time"

	"gatehouse/models"
)

// A save takes with it the draft that its page knew of, and no other.
func TestSettleDraft(t *testing.T) {
	t.Parallel()
	d, alice, bob, process := office(t)
	typed := models.Draft{Title: "Order ink", Status: "draft", Description: "Ten\r\nboxes", BaseVersion: 1}
	saved := models.ProcessFields{Title: "Order ink", Status: "draft", Description: "Ten\nboxes"}
	other := models.ProcessFields{Title: "Order pens", Status: "draft", Description: "Ten\nboxes"}
	exactly := func(stored time.Time) time.Time { return stored }
	before := func(stored time.Time) time.Time { return stored.Add(-time.Microsecond) }
	for _, row := range []struct {
		name  string
		saved models.ProcessFields
		known func(stored time.Time) time.Time // nil: the page knows of none
		stays bool
	}{
		{"of the saved text", saved, nil, false},
		{"of the saved text, and stored later", saved, before, false},
		{"of another text, which the page knew", other, exactly, false},
		{"of another text, stored later", other, before, true},
		{"of another text, of which the page knew nothing", other, nil, true},
	} {
		stored := must(d.SaveDraft(t.Context(), alice, process.ID, typed, time.Time{}))
		must(d.SaveDraft(t.Context(), bob, process.ID, typed, time.Time{}))
		var known time.Time
		if row.known != nil {
			known = row.known(stored.SavedAt)
		}
		stays, err := d.SettleDraft(t.Context(), alice, process.ID, row.saved, known)
		if err != nil || stays != row.stays {
			t.Errorf("%s: it stays: %t, %v", row.name, stays, err)
		}
		if _, err := d.Draft(t.Context(), alice, process.ID); (err == nil) != row.stays {
			t.Errorf("%s: the draft: %v", row.name, err)
		}
		if _, err := d.Draft(t.Context(), bob, process.ID); err != nil {
			t.Errorf("%s: the draft of another user: %v", row.name, err)
		}
	}
	check(t, d.DeleteDraft(t.Context(), alice, process.ID, time.Time{}))
	if stays, err := d.SettleDraft(t.Context(), alice, process.ID, saved, time.Time{}); err != nil || stays {
		t.Errorf("without a draft: %t, %v", stays, err)
	}
}
