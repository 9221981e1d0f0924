package merge

import (
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/aymanbagabas/go-udiff/lcs"
)

// Kind says what became of a line.
type Kind int

const (
	// Kept is a line that both texts have.
	Kept Kind = iota
	// Removed is a line of the former text only.
	Removed
	// Added is a line of the later text only.
	Added
	// Skipped stands for lines that both texts have, too far from a change to be shown.
	Skipped
)

// Line is a line of a comparison, without its end. Of Skipped lines Count says how many they are.
type Line struct {
	Kind  Kind
	Text  string
	Count int
}

// shortest is how many lines are skipped at least: a note that two are missing is no shorter.
const shortest = 3

// Lines compares two texts line by line. Of what they share, it shows around lines before and
// after each change. It is empty if the texts differ in nothing but how their lines end.
func Lines(former, later string, around int) []Line {
	from, to := split(former), split(later)
	edits := lcs.DiffLines(from, to)
	if len(edits) == 0 {
		return nil
	}
	var lines []Line
	at := 0
	for i, edit := range edits {
		lines = appendKept(lines, from[at:edit.Start], around, i > 0, true)
		for _, text := range from[edit.Start:edit.End] {
			lines = append(lines, Line{Kind: Removed, Text: text})
		}
		for _, text := range to[edit.ReplStart:edit.ReplEnd] {
			lines = append(lines, Line{Kind: Added, Text: text})
		}
		at = edit.End
	}
	return appendKept(lines, from[at:], around, true, false)
}

// appendKept adds lines that both texts have. before and after say whether there is a change on
// that side of them.
func appendKept(lines []Line, kept []string, around int, before, after bool) []Line {
	head, tail := 0, len(kept) // what is between them is skipped
	if before {
		head = min(around, len(kept))
	}
	if after {
		tail = max(head, len(kept)-around)
	}
	if tail-head < shortest {
		head = tail
	}
	for _, text := range kept[:head] {
		lines = append(lines, Line{Kind: Kept, Text: text})
	}
	if tail > head {
		lines = append(lines, Line{Kind: Skipped, Count: tail - head})
	}
	for _, text := range kept[tail:] {
		lines = append(lines, Line{Kind: Kept, Text: text})
	}
	return lines
}

// split cuts a text into its lines. A text that ends with a line end has no empty line after it.
func split(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(lineFeeds(text), "\n"), "\n")
}

// Together is a text with the changes of both sides, if they changed different lines; ok is
// false if they did not. Lines that the sides put at the same place come mine first. It is a
// proposal: lines that merge may still contradict each other.
func Together(base, mine, theirs string) (text string, ok bool) {
	base, mine, theirs = lineFeeds(base), lineFeeds(mine), lineFeeds(theirs)
	was := ended(base)
	edits, ok := udiff.Merge(udiff.Lines(was, ended(mine)), udiff.Lines(was, ended(theirs)))
	if !ok {
		return "", false
	}
	text, err := udiff.Apply(was, edits)
	last := mine // the one that says whether the last line ends
	if mine == base {
		last = theirs
	}
	if !strings.HasSuffix(last, "\n") {
		text = strings.TrimSuffix(text, "\n")
	}
	return text, err == nil
}

// ended is a text whose last line ends as the others do: else what comes after it would be glued to
// it, and a text to which both sides add a line would be one that both changed.
func ended(text string) string {
	if text == "" || strings.HasSuffix(text, "\n") {
		return text
	}
	return text + "\n"
}
