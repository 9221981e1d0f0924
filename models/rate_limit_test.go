package models_test

import (
	"strings"
	"testing"
	"time"

	"gatehouse/models"
)

func TestPolicyValidate(t *testing.T) {
	good := models.Policy{Name: "api", Limit: 300, Window: time.Minute}
	for _, row := range []struct {
		name   string
		change func(*models.Policy)
		want   string // in the error; "" for none
	}{
		{"as it is", func(*models.Policy) {}, ""},
		{"the smallest", func(p *models.Policy) { p.Limit, p.Window = 1, time.Second }, ""},
		{"the largest", func(p *models.Policy) { p.Limit, p.Window = 1_000_000, 24*time.Hour }, ""},
		{"a large log", func(p *models.Policy) { p.Limit, p.Algorithm = 1001, models.AlgorithmSlidingLog }, "sliding log"},
		{"a large bucket", func(p *models.Policy) { p.Limit, p.Algorithm = 1001, models.AlgorithmGCRA }, ""},
		{"no name", func(p *models.Policy) { p.Name = "" }, "name"},
		{"a name that breaks headers", func(p *models.Policy) { p.Name = `a", b` }, "name"},
		{"no limit", func(p *models.Policy) { p.Limit = 0 }, "limit"},
		{"a limit too high", func(p *models.Policy) { p.Limit = 1_000_001 }, "limit"},
		{"a window too short", func(p *models.Policy) { p.Window = 999 * time.Millisecond }, "window"},
		{"half seconds", func(p *models.Policy) { p.Window = 1500 * time.Millisecond }, "window"},
		{"a window too long", func(p *models.Policy) { p.Window = 25 * time.Hour }, "window"},
		{"a block", func(p *models.Policy) { p.Block = 300 }, ""},
		{"a block above the limit", func(p *models.Policy) { p.Block = 301 }, "block (lease)"},
		{"blocks that size themselves", func(p *models.Policy) { p.Block = models.BlockAuto }, ""},
		{"a negative block", func(p *models.Policy) { p.Block = -2 }, "block (lease)"},
		{"an unknown algorithm", func(p *models.Policy) { p.Algorithm = "leaky" }, "algorithm"},
		{"closed", func(p *models.Policy) { p.OnRedisDown = models.OnRedisDownClosed }, ""},
		{"an unknown failure policy", func(p *models.Policy) { p.OnRedisDown = "panic" }, "Redis is down"},
	} {
		p := good
		row.change(&p)
		err := p.Validate()
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}
