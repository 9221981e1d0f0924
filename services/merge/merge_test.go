package merge_test

import (
	"slices"
	"strings"
	"testing"

	"gatehouse/models"
	"gatehouse/services/merge"
)

// fields is a process in one line: title, status and description.
func fields(title, status, description string) models.ProcessFields {
	return models.ProcessFields{Title: title, Status: status, Description: description}
}

func TestThreeWay(t *testing.T) {
	t.Parallel()
	base := fields("Order paper", "draft", "Ten boxes.\nBy Friday.")
	for _, row := range []struct {
		name         string
		mine, theirs models.ProcessFields
		changed      [3]merge.Side
		result       models.ProcessFields
	}{
		{"nobody changed anything", base, base, [3]merge.Side{}, base},
		{
			"one side each", fields("Order ink", "draft", base.Description), fields(base.Title, "active", base.Description),
			[3]merge.Side{merge.Mine, merge.Theirs, merge.Neither}, fields("Order ink", "active", base.Description),
		},
		{
			"both the same", fields("Order ink", "draft", base.Description), fields("Order ink", "draft", base.Description),
			[3]merge.Side{}, fields("Order ink", "draft", base.Description),
		},
		{
			"both, differently", fields("Order ink", "active", base.Description), fields("Order pens", "paused", base.Description),
			[3]merge.Side{merge.Both, merge.Both, merge.Neither}, fields("Order ink", "active", base.Description),
		},
		{
			"one emptied what the other changed", fields(base.Title, "draft", ""), fields(base.Title, "draft", "Twelve boxes."),
			[3]merge.Side{merge.Neither, merge.Neither, merge.Both}, fields(base.Title, "draft", ""),
		},
		{
			"a browser's line ends are no change", fields(base.Title, "draft", "Ten boxes.\r\nBy Friday."), fields(base.Title, "draft", "Ten boxes.\nBy Monday."),
			[3]merge.Side{merge.Neither, merge.Neither, merge.Theirs}, fields(base.Title, "draft", "Ten boxes.\nBy Monday."),
		},
		{
			"what is stored keeps its line ends", base, fields(base.Title, "draft", "Ten boxes.\r\nBy Friday."),
			[3]merge.Side{}, fields(base.Title, "draft", "Ten boxes.\r\nBy Friday."),
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got := merge.ThreeWay(&base, row.mine, row.theirs)
			for i, field := range got.Fields {
				if field.Changed != row.changed[i] {
					t.Errorf("%s is changed by %d, want %d", field.Name, field.Changed, row.changed[i])
				}
			}
			if got.Result() != row.result {
				t.Errorf("merged: %q, want %q", got.Result(), row.result)
			}
			if got.Conflicts() != slices.Contains(row.changed[:], merge.Both) {
				t.Errorf("conflicts: %t", got.Conflicts())
			}
		})
	}
}

func TestThreeWayFromAnUnknownBase(t *testing.T) {
	t.Parallel()
	mine, theirs := fields("Order ink", "active", "Red"), fields("Order ink", "paused", "Red")
	got := merge.ThreeWay(nil, mine, theirs)
	if !got.BaseUnknown || !got.Conflicts() || got.Fields[0].Changed != merge.Neither || got.Fields[1].Changed != merge.Both {
		t.Errorf("%+v", got)
	}
	// An empty field is a value like any other.
	if got := merge.ThreeWay(nil, fields("", "", ""), theirs); !got.Conflicts() {
		t.Errorf("nothing to decide between nothing and something: %+v", got)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	from := fields("Order paper", "draft", "Ten boxes.")
	if got := merge.Changes(from, from); got != nil {
		t.Errorf("no change is %+v", got)
	}
	got := merge.Changes(from, fields("Order paper", "active", "Ten boxes.\r\n"))
	if len(got) != 2 || got[0].Name != merge.Status || got[0].Base != "draft" || got[0].Theirs != "active" {
		t.Errorf("%+v", got)
	}
}

func TestClean(t *testing.T) {
	t.Parallel()
	got := merge.Clean(fields("Order\r\npaper", "draft", "a\r\nb\rc\n\n"))
	if got != fields("Orderpaper", "draft", "a\nb\nc\n\n") {
		t.Errorf("%q", got)
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	marks := map[merge.Kind]string{merge.Kept: " ", merge.Removed: "-", merge.Added: "+"}
	drawn := func(lines []merge.Line) string {
		var b strings.Builder
		for _, line := range lines {
			if line.Kind == merge.Skipped {
				b.WriteString(strings.Repeat(".", line.Count))
			} else {
				b.WriteString(marks[line.Kind] + line.Text)
			}
			b.WriteString("|")
		}
		return b.String()
	}
	for _, row := range []struct{ name, former, later, want string }{
		{"equal", "a\nb", "a\nb", ""},
		{"only line ends differ", "a\nb\n", "a\r\nb", ""},
		{"from nothing", "", "a\nb", "+a|+b|"},
		{"to nothing", "a", "", "-a|"},
		{"an empty line is a line", "a\n\nb", "a\nb", " a|-| b|"},
		{"a change between what stays", "a\nb\nc", "a\nx\nc", " a|-b|+x| c|"},
		{"what is far away is skipped", "1\n2\n3\n4\n5\n6\n7", "1\n2\n3\n4\n5\n6\nx", ".....| 6|-7|+x|"},
		{"between two changes", "a\n1\n2\n3\n4\n5\nb", "x\n1\n2\n3\n4\n5\ny", "-a|+x| 1|...| 5|-b|+y|"},
		{"a gap that is no shorter", "a\n1\n2\n3\n4\nb", "x\n1\n2\n3\n4\ny", "-a|+x| 1| 2| 3| 4|-b|+y|"},
		{"an insertion at the start, and the end", "1\n2\n3\n4\n5", "a\n1\n2\n3\n4\n5", "+a| 1|....|"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if got := drawn(merge.Lines(row.former, row.later, 1)); got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
}

func TestTogether(t *testing.T) {
	t.Parallel()
	const base = "one\ntwo\nthree\nfour\n"
	for _, row := range []struct{ name, mine, theirs, want string }{
		{"different lines", "ONE\ntwo\nthree\nfour\n", "one\ntwo\nthree\nFOUR\n", "ONE\ntwo\nthree\nFOUR\n"},
		{"the same change", "ONE\ntwo\nthree\nfour\n", "ONE\ntwo\nthree\nfour\n", "ONE\ntwo\nthree\nfour\n"},
		{"one line added by each", base + "mine\n", base + "theirs\n", base + "mine\ntheirs\n"},
		{"a browser's line ends", "ONE\r\ntwo\r\nthree\r\nfour\r\n", base, "ONE\ntwo\nthree\nfour\n"},
	} {
		if got, ok := merge.Together(base, row.mine, row.theirs); !ok || got != row.want {
			t.Errorf("%s: %q, %t", row.name, got, ok)
		}
	}
	for _, row := range []struct{ name, base, mine, theirs, want string }{
		{"two texts where there was none", "", "Beans", "Peas", "Beans\nPeas"},
		{"one line added by each, at an end that has none", "Seeds", "Seeds\nBeans", "Seeds\nPeas", "Seeds\nBeans\nPeas"},
		{"only the last line", "a\nb", "a\nB", "a\nb", "a\nB"},
		{"an end that was taken away", "a\n", "a", "a\n", "a"},
	} {
		if got, ok := merge.Together(row.base, row.mine, row.theirs); !ok || got != row.want {
			t.Errorf("%s: %q, %t", row.name, got, ok)
		}
	}
	if got, ok := merge.Together(base, "ONE\ntwo\nthree\nfour\n", "1\ntwo\nthree\nfour\n"); ok {
		t.Errorf("one line in two ways: %q", got)
	}
}

// FuzzMerge: whatever the three texts are, no side's change is lost, it does not matter which
// side is called mine, and a comparison of lines has all of both texts.
func FuzzMerge(f *testing.F) {
	for _, seed := range [][3]string{
		{"", "", ""}, {"a", "b", "c"}, {"a", "a", "b"}, {"a\nb\nc", "a\nx\nc", "a\nb\nc\nd"}, {"a\r\nb", "a\nb", "a\rb\n"},
		{"x\n", "", "x\n\n"}, {"ä\u2028", "\xff", "🙂\n🙂"}, {strings.Repeat("a\n", 300), strings.Repeat("b\n", 300), strings.Repeat("a\nb\n", 150)},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, base, mine, theirs string) {
		versions := func(a, b, c string) (models.ProcessFields, models.ProcessFields, models.ProcessFields) {
			return fields(a, b, c), fields(b, c, a), fields(c, a, b) // each field has the texts in another order
		}
		was, my, other := versions(base, mine, theirs)
		for _, known := range []*models.ProcessFields{&was, nil} {
			noSideIsLost(t, merge.ThreeWay(known, my, other), merge.ThreeWay(known, other, my))
		}
		for _, pair := range [][2]string{{base, mine}, {mine, theirs}} {
			bothTextsAreThere(t, pair[0], pair[1])
		}
		if together, ok := merge.Together(base, mine, theirs); ok && merge.Clean(fields("", "", theirs)) == merge.Clean(fields("", "", base)) {
			if together != merge.Clean(fields("", "", mine)).Description {
				t.Errorf("mine alone changed %q to %q: %q", base, mine, together)
			}
		}
	})
}

func noSideIsLost(t *testing.T, m, swapped merge.Merged) {
	t.Helper()
	mirror := map[merge.Side]merge.Side{merge.Neither: merge.Neither, merge.Mine: merge.Theirs, merge.Theirs: merge.Mine, merge.Both: merge.Both}
	equal := func(field, a, b string) bool {
		one, other := models.ProcessFields{Description: a}, models.ProcessFields{Description: b}
		if field == merge.Title {
			one, other = models.ProcessFields{Title: a}, models.ProcessFields{Title: b}
		}
		return merge.Clean(one) == merge.Clean(other)
	}
	for i, f := range m.Fields {
		if swapped.Fields[i].Changed != mirror[f.Changed] {
			t.Errorf("%+v is %d, and with the sides exchanged %d", f, f.Changed, swapped.Fields[i].Changed)
		}
		if f.Changed != merge.Both && !equal(f.Name, f.Value(), swapped.Fields[i].Value()) {
			t.Errorf("%+v becomes %q, and with the sides exchanged %q", f, f.Value(), swapped.Fields[i].Value())
		}
		for _, side := range []string{f.Mine, f.Theirs} {
			if changed := m.BaseUnknown || !equal(f.Name, side, f.Base); changed && f.Changed != merge.Both && !equal(f.Name, side, f.Value()) {
				t.Errorf("%+v becomes %q: %q is lost", f, f.Value(), side)
			}
		}
	}
}

func bothTextsAreThere(t *testing.T, former, later string) {
	t.Helper()
	split := func(text string) []string {
		text = strings.TrimSuffix(merge.Clean(fields("", "", text)).Description, "\n")
		return strings.Split(text, "\n")
	}
	lines := merge.Lines(former, later, 1<<20)
	if lines == nil {
		if a, b := split(former), split(later); !slices.Equal(a, b) && strings.TrimSpace(former+later) != "" {
			t.Errorf("no difference between %q and %q", former, later)
		}
		return
	}
	var before, after []string
	for _, line := range lines {
		if line.Kind == merge.Skipped {
			t.Fatalf("%d lines are skipped, and all were asked for", line.Count)
		}
		if line.Kind != merge.Added {
			before = append(before, line.Text)
		}
		if line.Kind != merge.Removed {
			after = append(after, line.Text)
		}
	}
	if strings.Join(before, "\n") != strings.Join(split(former), "\n") || strings.Join(after, "\n") != strings.Join(split(later), "\n") {
		t.Errorf("%q and %q: the lines are %q and %q", former, later, before, after)
	}
}
