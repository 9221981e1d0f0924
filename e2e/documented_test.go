package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// statuses are what the API answered in all tests together, to be compared with
// what its document says.
var statuses struct {
	sync.Mutex
	seen map[string]map[int]bool // "METHOD path" below /api/v1
}

func noteStatus(what string, status int) {
	what, _, _ = strings.Cut(what, "?")
	statuses.Lock()
	defer statuses.Unlock()
	if statuses.seen == nil {
		statuses.seen = map[string]map[int]bool{}
	}
	if statuses.seen[what] == nil {
		statuses.seen[what] = map[int]bool{}
	}
	statuses.seen[what][status] = true
}

// undocumented are the statuses answered that the document does not know for the
// route. Paths and methods that no route has are not its matter.
func undocumented(document string) ([]string, error) {
	text, err := os.ReadFile(document)
	if err != nil {
		return nil, fmt.Errorf("read the API's document: %w", err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Responses map[string]json.RawMessage `json:"responses"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("read the API's document: %w", err)
	}
	// Paths without parameters first: /locks/events is no lock.
	paths := slices.SortedFunc(maps.Keys(doc.Paths), func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(a, "{"), strings.Count(b, "{")), cmp.Compare(a, b))
	})
	parameter := regexp.MustCompile(`\\\{[^/]+\\\}`)
	var patterns []*regexp.Regexp
	for _, path := range paths {
		patterns = append(patterns, regexp.MustCompile("^"+parameter.ReplaceAllString(regexp.QuoteMeta(path), "[^/]+")+"$"))
	}
	statuses.Lock()
	defer statuses.Unlock()
	var missing []string
	routes := map[string]bool{}
	for what, seen := range statuses.seen {
		method, path, _ := strings.Cut(what, " ")
		i := slices.IndexFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(path) })
		if i < 0 {
			continue
		}
		route, known := doc.Paths[paths[i]][strings.ToLower(method)]
		if !known {
			continue
		}
		routes[method+" "+paths[i]] = true
		for status := range seen {
			if _, told := route.Responses[strconv.Itoa(status)]; !told {
				missing = append(missing, fmt.Sprintf("%s %s answered %d %s", method, paths[i], status, http.StatusText(status)))
			}
		}
	}
	all := 0
	for _, methods := range doc.Paths {
		all += len(methods)
	}
	if len(statuses.seen) > 100 && len(routes) < all { // fewer are a run of some tests
		missing = append(missing, fmt.Sprintf("only %d of its %d routes were asked", len(routes), all))
	}
	slices.Sort(missing)
	return slices.Compact(missing), nil
}
