package merge

import (
	"strings"

	"gatehouse/models"
)

// Side says which of two sides changed a field.
type Side int

const (
	// Neither side changed the field, or both to the same value.
	Neither Side = iota
	// Mine is a field that only the editor changed.
	Mine
	// Theirs is a field that only the other user changed.
	Theirs
	// Both changed the field, to different values: a conflict.
	Both
)

// The names of the fields, as the API has them.
const (
	Title       = "title"
	Status      = "status"
	Description = "description"
)

// Field is one field of three versions.
type Field struct {
	Name               string
	Base, Mine, Theirs string
	Changed            Side
}

// Value is what the field has after the merge: in a conflict the editor's own value.
func (f Field) Value() string {
	if f.Changed == Mine || f.Changed == Both {
		return f.Mine
	}
	return f.Theirs
}

// Merged is the result of ThreeWay: title, status and description.
type Merged struct {
	Fields [3]Field
	// BaseUnknown: nobody knows what the editor began from. Each field in which the two sides
	// differ is a conflict then.
	BaseUnknown bool
}

// ThreeWay merges what an editor wrote with what is stored. base is what the editor began from;
// nil if it is unknown. Texts that differ only in how their lines end count as equal, because
// browsers send other line ends than they were given: the stored text stays.
func ThreeWay(base *models.ProcessFields, mine, theirs models.ProcessFields) Merged {
	m := Merged{BaseUnknown: base == nil}
	if base == nil {
		base = &models.ProcessFields{}
	}
	m.Fields = [3]Field{
		{Name: Title, Base: base.Title, Mine: mine.Title, Theirs: theirs.Title},
		{Name: Status, Base: base.Status, Mine: mine.Status, Theirs: theirs.Status},
		{Name: Description, Base: base.Description, Mine: mine.Description, Theirs: theirs.Description},
	}
	for i := range m.Fields {
		m.Fields[i].Changed = m.changed(m.Fields[i])
	}
	return m
}

func (m Merged) changed(f Field) Side {
	switch {
	case same(f.Name, f.Mine, f.Theirs):
		return Neither
	case m.BaseUnknown:
		return Both
	case same(f.Name, f.Mine, f.Base):
		return Theirs
	case same(f.Name, f.Theirs, f.Base):
		return Mine
	}
	return Both
}

// Conflicts reports whether the editor has to decide about a field.
func (m Merged) Conflicts() bool {
	for _, f := range m.Fields {
		if f.Changed == Both {
			return true
		}
	}
	return false
}

// ChangedBy reports whether a side changed a field, alone or as the other side did, too.
func (m Merged) ChangedBy(side Side) bool {
	for _, f := range m.Fields {
		if f.Changed == side || f.Changed == Both {
			return true
		}
	}
	return false
}

// Result is the merged process: a field in conflict has the editor's own value.
func (m Merged) Result() models.ProcessFields {
	return models.ProcessFields{Title: m.Fields[0].Value(), Status: m.Fields[1].Value(), Description: m.Fields[2].Value()}
}

// Changes are the fields in which two versions differ, with Base as the former value and Theirs
// as the later one.
func Changes(from, to models.ProcessFields) []Field {
	var changed []Field
	for _, f := range ThreeWay(&from, from, to).Fields {
		if f.Changed == Theirs {
			changed = append(changed, f)
		}
	}
	return changed
}

// Clean is what a browser sent, as it is stored: lines end with a line feed, and a title is one
// line.
func Clean(f models.ProcessFields) models.ProcessFields {
	f.Title, f.Description = oneLine(f.Title), lineFeeds(f.Description)
	return f
}

func same(field, a, b string) bool {
	if field == Title {
		return oneLine(a) == oneLine(b)
	}
	return lineFeeds(a) == lineFeeds(b)
}

func lineFeeds(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
}

// oneLine is what a browser's one-line input makes of a text.
func oneLine(text string) string {
	return strings.NewReplacer("\r", "", "\n", "").Replace(text)
}
