package models_test

import (
	"testing"

	"gatehouse/models"
)

func TestHighestRole(t *testing.T) {
	for _, row := range []struct {
		want  string
		roles []string
	}{
		{"", nil},
		{"", []string{"owner"}},
		{models.RoleViewer, []string{models.RoleViewer}},
		{models.RoleEditor, []string{models.RoleEditor, models.RoleViewer}},
		{models.RoleAdmin, []string{models.RoleViewer, models.RoleAdmin}},
	} {
		if got := models.HighestRole(row.roles); got != row.want {
			t.Errorf("of %q: %q, want %q", row.roles, got, row.want)
		}
	}
}
