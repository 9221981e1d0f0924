package handlers

import (
	"encoding/json"
	"fmt"
	"strings"

	"gatehouse/models"
)

// maxNames limits the memory that a body takes before its fields are checked. Real requests
// have a handful of names.
const maxNames = 10_000

const jsonSpace = " \t\r\n"

// jsonField is a field of the outermost object of a document.
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
// compares decoded names, so "a" and "\u0061" are the same. raw must be valid JSON: a string before
// a colon is a name.
func checkNames(raw []byte) (fields []jsonField, errs []models.FieldError) {
	document := string(raw) // names are parts of it
	fields = make([]jsonField, 0, 4)
	levels := make([]jsonLevel, 0, 4)
	names := 0
	for i := 0; i < len(document) && len(errs) < maxErrors; i++ {
		switch document[i] {
		case '{':
			levels = append(levels, jsonLevel{seen: map[string]int{}})
		case '[':
			levels = append(levels, jsonLevel{})
		case '}', ']':
			levels = levels[:len(levels)-1]
		case '"':
			text := jsonText(document[i:])
			i += len(text) - 1
			value, isName := strings.CutPrefix(strings.TrimLeft(document[i+1:], jsonSpace), ":")
			if !isName {
				continue
			}
			if names++; names > maxNames {
				return nil, models.Invalid("body", fmt.Sprintf("must have at most %d names", maxNames)).Errors
			}
			top := &levels[len(levels)-1]
			top.name = unquoted(text)
			if top.seen[top.name]++; top.seen[top.name] == 2 {
				errs = append(errs, models.FieldError{Field: fieldPath(levels), Message: "must be given once"})
			}
			if len(levels) == 1 {
				null := strings.HasPrefix(strings.TrimLeft(value, jsonSpace), "null")
				fields = append(fields, jsonField{top.name, null})
			}
		}
	}
	return fields, listed(errs)
}

// jsonText is the string at the start of text, with its quotes.
func jsonText(text string) string {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return text[:i+1]
		}
	}
	return text
}

// unquoted is what a string of a valid document means.
func unquoted(text string) string {
	inside := text[1 : len(text)-1]
	if !strings.ContainsRune(inside, '\\') {
		return inside
	}
	var meant string
	_ = json.Unmarshal([]byte(text), &meant)
	return meant
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
