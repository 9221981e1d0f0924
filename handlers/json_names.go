package handlers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"gatehouse/models"
)

// maxNames limits the memory that a body takes before its fields are checked. Real requests
// have a handful of names.
const maxNames = 10_000

// jsonField is a field of the outermost object.
type jsonField struct {
	name string
	null bool
}

// jsonLevel is an object or a list around the current position in a document.
type jsonLevel struct {
	seen map[string]int // how often each name came; nil in a list
	name string         // the last one
}

// checkNames returns the fields of the outermost object, and reports names that come more than
// once in one object, at any depth: JSON readers differ in which of the values they take. It
// compares decoded names, so "a" and "\u0061" are the same. raw must be valid JSON: a string
// before a colon is a name.
func checkNames(raw []byte) (fields []jsonField, errs []models.FieldError) {
	var levels []jsonLevel
	names := 0
	for i := 0; i < len(raw) && len(errs) < maxErrors; i++ {
		switch raw[i] {
		case '{':
			levels = append(levels, jsonLevel{seen: make(map[string]int, 4)})
		case '[':
			levels = append(levels, jsonLevel{})
		case '}', ']':
			levels = levels[:len(levels)-1]
		case '"':
			text := jsonText(raw[i:])
			i += len(text) - 1
			after := bytes.TrimLeft(raw[i+1:], jsonSpace)
			if len(after) == 0 || after[0] != ':' {
				continue
			}
			if names++; names > maxNames {
				return nil, models.Invalid("body", fmt.Sprintf("must have at most %d names", maxNames)).Errors
			}
			top := &levels[len(levels)-1]
			top.name = decodedName(text)
			if len(levels) == 1 {
				fields = append(fields, jsonField{top.name, bytes.HasPrefix(bytes.TrimLeft(after[1:], jsonSpace), []byte("null"))})
			}
			if top.seen[top.name]++; top.seen[top.name] == 2 {
				errs = append(errs, models.FieldError{Field: fieldPath(levels), Message: "must be given once"})
			}
		}
	}
	return fields, listed(errs)
}

const jsonSpace = " \t\r\n"

// decodedName is the text of a JSON string, which must be valid.
func decodedName(text []byte) (name string) {
	if bytes.IndexByte(text, '\\') < 0 && utf8.Valid(text) {
		return string(text[1 : len(text)-1])
	}
	_ = json.Unmarshal(text, &name)
	return name
}

// jsonText is the string at the start of raw, with its quotes.
func jsonText(raw []byte) []byte {
	for i := 1; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '"':
			return raw[:i+1]
		}
	}
	return raw
}

// fieldPath is the current position, such as "a.b", cut where an answer would cut it.
func fieldPath(levels []jsonLevel) string {
	var names []string
	for _, level := range levels {
		if level.seen != nil && len(names) <= maxName {
			names = append(names, level.name)
		}
	}
	return strings.Join(names, ".")
}
