package templates

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestContrast computes WCAG's contrast of the colours that are used together:
// 4.5 for text, 3 for what must be seen of a control (1.4.3 and 1.4.11, AA).
func TestContrast(t *testing.T) {
	css, _ := newPages(t).Asset("app.css")
	light, rest, ok := strings.Cut(string(css.Body), "@media (prefers-color-scheme: dark)")
	if !ok {
		t.Fatal("no dark scheme")
	}
	dark, _, _ := strings.Cut(rest, "*, ::before")
	for scheme, colours := range map[string]map[string]float64{"light": luminances(t, light), "dark": luminances(t, dark)} {
		for _, pair := range []struct {
			on, under string
			least     float64
		}{
			{"ink", "ground", 4.5}, {"ink", "surface", 4.5}, {"ink", "raised", 4.5},
			{"muted", "ground", 4.5}, {"muted", "surface", 4.5}, {"muted", "raised", 4.5},
			{"accent", "ground", 4.5}, {"accent", "surface", 4.5}, {"accent-strong", "surface", 4.5}, {"accent-strong", "tag", 4.5},
			{"on-accent", "accent", 4.5}, {"on-accent", "accent-strong", 4.5},
			{"danger", "surface", 4.5}, {"on-danger", "danger", 4.5}, {"on-danger", "danger-strong", 4.5},
			{"bad-ink", "bad", 4.5}, {"warn-ink", "warn", 4.5}, {"good-ink", "good", 4.5},
			{"control", "surface", 3}, {"control", "ground", 3}, {"accent", "good", 3}, {"accent", "bad", 3},
		} {
			a, b := colours[pair.on], colours[pair.under]
			if got := (max(a, b) + 0.05) / (min(a, b) + 0.05); got < pair.least {
				t.Errorf("%s: %s on %s has %.2f, want at least %.1f", scheme, pair.on, pair.under, got, pair.least)
			}
		}
	}
}

// luminances are the relative luminances of the custom properties that are colours.
func luminances(t *testing.T, css string) map[string]float64 {
	t.Helper()
	found := map[string]float64{}
	for _, match := range regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6});`).FindAllStringSubmatch(css, -1) {
		rgb, err := strconv.ParseUint(match[2], 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		channel := func(shift uint) float64 {
			v := float64(rgb>>shift&0xff) / 255
			if v <= 0.04045 {
				return v / 12.92
			}
			return math.Pow((v+0.055)/1.055, 2.4)
		}
		found[match[1]] = 0.2126*channel(16) + 0.7152*channel(8) + 0.0722*channel(0)
	}
	if len(found) < 20 {
		t.Fatalf("found only %d colours", len(found))
	}
	return found
}
