package models_test

import (
	"strings"
	"testing"

	"gatehouse/models"
)

func TestIsName(t *testing.T) {
	for _, row := range []struct {
		text, others string
		want         bool
	}{
		{"", "", false}, {"a", "", true}, {"azAZ09", "", true}, {"a-b", "-", true}, {"a-b", "_", false}, {"a b", "-", false}, {"a\n", "", false},
		{"@", "", false}, {"[", "", false}, {"`", "", false}, {"{", "", false}, {"/", "", false}, {":", "", false}, {"ä", "", false}, {"\xff", "", false}, {"a\x00", "", false},
		{strings.Repeat("a", 64), "", true}, {strings.Repeat("a", 65), "", false},
	} {
		if got := models.IsName(row.text, row.others); got != row.want {
			t.Errorf("IsName(%q, %q) = %v", row.text, row.others, got)
		}
	}
}
