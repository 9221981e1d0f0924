package handlers

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestCheckNames(t *testing.T) {
	for document, want := range map[string][]string{
		`{}`:                                  nil,
		`[]`:                                  nil,
		`7`:                                   nil,
		`"a"`:                                 nil,
		`1e999`:                               nil,
		`{"a":1,"b":2}`:                       nil,
		`{"a":"b","b":"a"}`:                   nil,
		`{"a":1,"A":2}`:                       nil, // unknown, which is another error
		`{"a":1,"a":2}`:                       {"a"},
		`{"a":1,"a":1,"a":1}`:                 {"a"},
		`{"b":1,"a":1,"b":1,"a":1}`:           {"a", "b"},
		`{"a":1,"\u0061":2}`:                  {"a"},
		`{"\u0061":1,"a":2}`:                  {"a"},
		`{"ä":1,"\u00e4":2}`:                  {"ä"},
		`{"":1,"":2}`:                         {""},
		`{"a":{"b":1,"b":2}}`:                 {"a.b"},
		`{"a":{"b":1},"b":2}`:                 nil,
		`{"a":{"a":1}}`:                       nil,
		`{"a":{},"a":{}}`:                     {"a"},
		`{"a":[],"a":[]}`:                     {"a"},
		`{"a":["a","a"]}`:                     nil,
		`["a","a"]`:                           nil,
		`[{"a":1},{"a":2}]`:                   nil,
		`[[{"a":1,"a":2}]]`:                   {"a"},
		`{"x":[{"y":1},{"z":{"a":1,"a":2}}]}`: {"x.z.a"},
		`{"a":{"b":{"c":1}},"d":1,"a":2}`:     {"a"},
		"{ \"a\" :\t1 ,\n\"a\"\r\n: 2 }":      {"a"},
		`{"a":":","b":"a\":","c":"\\","a":1}`: {"a"},
		`{"\"":1,"\u0022":2}`:                 {`"`},
		`{"a":null,"a":null}`:                 {"a"},
	} {
		if !json.Valid([]byte(document)) {
			t.Fatalf("not JSON: %s", document)
		}
		var got []string
		_, errs := checkNames([]byte(document))
		for _, wrong := range errs {
			got = append(got, wrong.Field)
			if wrong.Message != "must be given once" {
				t.Errorf("%s: %s", document, wrong.Message)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", document, got, want)
		}
	}
}

// However deep, wide or wrong a body is, looking at its names costs little.
func TestCheckNamesIsBounded(t *testing.T) {
	var many, twice strings.Builder
	for i := range maxBody / 12 {
		fmt.Fprintf(&many, `"%07d":1,`, i)
	}
	for i := range 1000 {
		fmt.Fprintf(&twice, `"%d":1,"%d":2,`, i, i)
	}
	object := func(b strings.Builder) string { return "{" + strings.TrimSuffix(b.String(), ",") + "}" }
	deep := 9_000 // JSON deeper than 10,000 is none to encoding/json
	for name, row := range map[string]struct {
		document string
		errors   int
		field    string
	}{
		"many names":   {object(many), 1, "body"},
		"many twice":   {object(twice), maxErrors, "0"},
		"deep lists":   {strings.Repeat("[", deep) + strings.Repeat("]", deep), 0, ""},
		"deep objects": {strings.Repeat(`{"abcdefghijklmnopqrstuvwxyz":`, deep) + `{"a":1,"a":2}` + strings.Repeat("}", deep), 1, ""},
		"long name":    {`{"` + strings.Repeat("n", maxBody/2) + `":1,"` + strings.Repeat("n", maxBody/2) + `":2}`, 1, ""},
		"many numbers": {"[" + strings.Repeat("1,", maxBody/2-1) + "1]", 0, ""},
	} {
		raw := []byte(row.document)
		if !json.Valid(raw) {
			t.Fatalf("%s: not JSON", name)
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		_, errs := checkNames(raw)
		runtime.ReadMemStats(&after)
		if len(errs) != row.errors || row.errors > 0 && row.field != "" && errs[0].Field != row.field {
			t.Errorf("%s: %d errors: %.300v", name, len(errs), errs)
		}
		for _, wrong := range errs {
			if n := len([]rune(wrong.Field)); n > maxName {
				t.Errorf("%s: a field of %d characters", name, n)
			}
		}
		if cost := after.TotalAlloc - before.TotalAlloc; cost > 16*maxBody {
			t.Errorf("%s: %d bytes", name, cost)
		}
		t.Logf("%s, %d bytes: %d bytes are allocated, %d objects", name, len(raw), after.TotalAlloc-before.TotalAlloc, after.Mallocs-before.Mallocs)
	}
}
