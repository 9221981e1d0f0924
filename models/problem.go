package models

import (
	"encoding/json"
	"maps"
)

// Problem is an RFC 9457 problem+json document.
type Problem struct {
	Name   string // its type is /problems/<Name>
	Title  string
	Status int
	Detail string // what happened and what to do next
	// Members are the extra members of this kind of problem, such as "errors".
	Members map[string]any
	// Instance and RequestID are filled in when the problem is written.
	Instance  string
	RequestID string
}

// MarshalJSON writes the standard members and the extra ones side by side.
func (p Problem) MarshalJSON() ([]byte, error) {
	doc := map[string]any{
		"type": "/problems/" + p.Name, "title": p.Title, "status": p.Status, "detail": p.Detail,
		"instance": p.Instance, "requestId": p.RequestID,
	}
	maps.Copy(doc, p.Members)
	return json.Marshal(doc)
}
