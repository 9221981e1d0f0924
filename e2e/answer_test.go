package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// answer is what came back for a request. Status is 0 if nothing did.
type answer struct {
	Status int
	Header http.Header
	Body   []byte

	what string
	path string
}

// absent is what at answers for a member that is not there.
const absent = "(absent)"

// is fails the test unless the answer has this status.
func (a *answer) is(t testing.TB, status int) *answer {
	t.Helper()
	if a.Status != status {
		t.Fatalf("%s: status %d, want %d\n%s", a.what, a.Status, status, a.Body)
	}
	return a
}

// problem fails the test unless the answer is this problem. That it is a proper
// one has been checked for every answer.
func (a *answer) problem(t testing.TB, status int, name string) *answer {
	t.Helper()
	return a.is(t, status).with(t, "type", "/problems/"+name)
}

// with fails the test unless the member at path, such as "items.0.id", is want.
func (a *answer) with(t testing.TB, path string, want any) *answer {
	t.Helper()
	if got := a.at(t, path); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%s: %s is %v, want %v\n%s", a.what, path, got, want, a.Body)
	}
	return a
}

// header fails the test unless the header is want.
func (a *answer) header(t testing.TB, name, want string) *answer {
	t.Helper()
	if got := a.Header.Get(name); got != want {
		t.Fatalf("%s: header %s is %q, want %q", a.what, name, got, want)
	}
	return a
}

// at is the member at path: nil for null, absent if it is not there.
func (a *answer) at(t testing.TB, path string) any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(a.Body))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%s: the body is not JSON: %v\n%s", a.what, err, a.Body)
	}
	return member(value, path)
}

func member(value any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		switch in := value.(type) {
		case map[string]any:
			found, ok := in[name]
			if !ok {
				return absent
			}
			value = found
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(in) {
				return absent
			}
			value = in[i]
		default:
			return absent
		}
	}
	return value
}

// text is a member that must be a string with something in it.
func (a *answer) text(t testing.TB, path string) string {
	t.Helper()
	text, ok := a.at(t, path).(string)
	if !ok || text == "" || text == absent {
		t.Fatalf("%s: %s is not a text\n%s", a.what, path, a.Body)
	}
	return text
}

// number is a member that must be an integer.
func (a *answer) number(t testing.TB, path string) int64 {
	t.Helper()
	number, _ := a.at(t, path).(json.Number)
	n, err := number.Int64()
	if err != nil {
		t.Fatalf("%s: %s is not an integer\n%s", a.what, path, a.Body)
	}
	return n
}

// moment is a member that must be a time in UTC.
func (a *answer) moment(t testing.TB, path string) time.Time {
	t.Helper()
	text := a.text(t, path)
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || !strings.HasSuffix(text, "Z") {
		t.Fatalf("%s: %s is %q, not a time in UTC", a.what, path, text)
	}
	return at
}

// item is the entry of items whose member is value, nil if there is none.
func (a *answer) item(t testing.TB, name, value string) any {
	t.Helper()
	items, ok := a.at(t, "items").([]any)
	if !ok {
		t.Fatalf("%s: items is not a list\n%s", a.what, a.Body)
	}
	for _, item := range items {
		if member(item, name) == value {
			return item
		}
	}
	return nil
}

// fields are the names in the errors of a validation problem.
func (a *answer) fields(t testing.TB) []string {
	t.Helper()
	errors, _ := a.at(t, "errors").([]any)
	var names []string
	for _, e := range errors {
		names = append(names, fmt.Sprint(member(e, "field")))
		if message, ok := member(e, "message").(string); !ok || message == "" || message == absent {
			t.Errorf("%s: an error without a message\n%s", a.what, a.Body)
		}
	}
	return names
}

// degraded reports whether X-Degraded names the part.
func (a *answer) degraded(part string) bool {
	for named := range strings.SplitSeq(a.Header.Get("X-Degraded"), ", ") {
		if named == part {
			return true
		}
	}
	return false
}

// checkProblem holds any refusal to RFC 9457 and to the contract. It does not end
// the test, so that it can be called from any goroutine.
func (a *answer) checkProblem(t testing.TB) {
	t.Helper()
	if kind := a.Header.Get("Content-Type"); kind != "application/problem+json" {
		t.Errorf("%s: %d with Content-Type %q\n%s", a.what, a.Status, kind, a.Body)
		return
	}
	var doc struct {
		Type, Title, Detail, Instance, RequestID string
		Status                                   int
	}
	if err := json.Unmarshal(a.Body, &doc); err != nil {
		t.Errorf("%s: %v\n%s", a.what, err, a.Body)
		return
	}
	for name, ok := range map[string]bool{
		"type":      strings.HasPrefix(doc.Type, "/problems/"),
		"title":     doc.Title != "",
		"detail":    doc.Detail != "",
		"status":    doc.Status == a.Status,
		"instance":  doc.Instance == a.path,
		"requestId": doc.RequestID != "" && doc.RequestID == a.Header.Get("X-Request-Id"),
	} {
		if !ok {
			t.Errorf("%s: %s of the problem is wrong\n%s", a.what, name, a.Body)
		}
	}
	needs := map[int]string{401: "WWW-Authenticate", 405: "Allow", 423: "Retry-After", 429: "Retry-After", 503: "Retry-After"}
	if header := needs[a.Status]; header != "" && a.Header.Get(header) == "" {
		t.Errorf("%s: %d without %s", a.what, a.Status, header)
	}
	if a.Status == http.StatusInternalServerError {
		t.Errorf("%s: 500\n%s", a.what, a.Body)
	}
}
