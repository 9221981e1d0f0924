package handlers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"gatehouse/models"
)

// maxNames limits the memory that a body takes before its fields are checked. Real requests
// have a handful of names.
const maxNames = 10_000

// jsonLevel is an object or a list around the current position in a document.
type jsonLevel struct {
	seen map[string]int // how often each name came; nil in a list
	name string         // the last one
}

// checkNames reports names that come more than once in one object, at any depth: JSON readers
// differ in which of the values they take. It compares decoded names, so "a" and "\u0061" are
// the same. raw must be valid JSON: a string before a colon is a name.
func checkNames(raw []byte) []models.FieldError {
	var levels []jsonLevel
	var errs []models.FieldError
	names := 0
	for i := 0; i < len(raw) && len(errs) < maxErrors; i++ {
		switch raw[i] {
		case '{':
			levels = append(levels, jsonLevel{seen: map[string]int{}})
		case '[':
			levels = append(levels, jsonLevel{})
		case '}', ']':
			levels = levels[:len(levels)-1]
		case '"':
			text := jsonText(raw[i:])
			i += len(text) - 1
			if after := bytes.TrimLeft(raw[i+1:], " \t\r\n"); len(after) == 0 || after[0] != ':' {
				continue
			}
			if names++; names > maxNames {
				return models.Invalid("body", fmt.Sprintf("must have at most %d names", maxNames)).Errors
			}
			top := &levels[len(levels)-1]
			_ = json.Unmarshal(text, &top.name) // valid, because raw is
			if top.seen[top.name]++; top.seen[top.name] == 2 {
				errs = append(errs, models.FieldError{Field: fieldPath(levels), Message: "must be given once"})
			}
		}
	}
	return listed(errs)
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
