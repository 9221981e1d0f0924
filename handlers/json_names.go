package handlers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"gatehouse/models"
)

// maxNames bounds the memory that a body costs before its fields are looked at: no request
// has more than a handful.
const maxNames = 10_000

// jsonLevel is an object or a list that the walk over a document is in.
type jsonLevel struct {
	seen map[string]int // how often each name was there; nil in a list
	name string         // the last one
}

// checkNames reports the names that an object anywhere in a document has more than once:
// readers differ in which of the values they take. Names are compared as they are meant,
// so "a" and "\u0061" are one. raw is valid JSON: a text before a colon is a name.
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
			_ = json.Unmarshal(text, &top.name) // valid, as all of it
			if top.seen[top.name]++; top.seen[top.name] == 2 {
				errs = append(errs, models.FieldError{Field: fieldPath(levels), Message: "must be given once"})
			}
		}
	}
	return listed(errs)
}

// jsonText is the text that raw begins with, quotes included.
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

// fieldPath is where the walk is, such as "a.b", cut off where an answer would cut it.
func fieldPath(levels []jsonLevel) string {
	var names []string
	for _, level := range levels {
		if level.seen != nil && len(names) <= maxName {
			names = append(names, level.name)
		}
	}
	return strings.Join(names, ".")
}
