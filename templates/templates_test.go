package templates

import (
	"bytes"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// hostile is what a title, a reason or a header may hold.
const hostile = `"'><script>alert(1)</script><img src=x onerror=alert(2)>{{.}}`

func newPages(t *testing.T) *Pages {
	t.Helper()
	pages, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// everyPage renders each page, full and with as little as it may have.
func everyPage(t *testing.T) map[string][]byte {
	t.Helper()
	pages := newPages(t)
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	frame := Frame{
		Title: hostile, User: &User{Email: hostile, Role: "administrator", Admin: true}, Now: now, Ends: now.Add(time.Hour),
		Notices: []Notice{{Text: hostile}, {Text: hostile, Failed: true}}, Reload: "/?cursor=" + hostile,
		Refresh: "/dashboard/locks?cursor=" + hostile, RefreshAfter: 60,
	}
	plain := Frame{Title: "Plain", Now: now}
	quiet := Frame{Title: hostile, User: frame.User, Now: now, Ends: frame.Ends}
	lock := Lock{
		Resource: "process:42", Href: "/processes/42", Title: hostile, Holder: hostile, Mine: true, Since: now.Add(-48 * time.Hour),
		ExpiresAt: now.Add(90 * time.Second), Fence: "1795409690504967", Reason: hostile, Waiting: 2,
	}
	table := LockTable{
		Now: now, Locks: []Lock{lock, {Resource: "process:7", Holder: "bob@example.com", Since: now, ExpiresAt: now}},
		Count: 52, Admin: true, Filter: Filter{Text: hostile, Mine: true},
		Poll: "/dashboard/locks?seen=" + hostile, First: "/", Next: "/?cursor=" + hostile, Banner: &Banner{Title: hostile, Text: hostile},
	}
	sessions := []Session{{ID: hostile, Device: hostile, IP: hostile, Begun: now, LastSeen: now}, {ID: "2", Device: "curl", Begun: now, LastSeen: now, Current: true}}
	rendered := map[string][]byte{}
	keep := func(name string) func([]byte, error) {
		return func(page []byte, err error) {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			rendered[name] = page
		}
	}
	keep("sign in")(pages.SignIn(SignIn{Frame: plain}))
	keep("sign in again")(pages.SignIn(SignIn{Frame: plain, Email: hostile, Error: hostile}))
	keep("signed out")(pages.SignIn(SignIn{Frame: plain, Note: hostile}))
	keep("dashboard")(pages.Dashboard(Dashboard{Frame: frame, Table: table, Again: "/?cursor=" + hostile}))
	keep("account")(pages.Account(Account{Frame: frame, Sessions: sessions}))
	keep("nothing found")(pages.Dashboard(Dashboard{Frame: frame, Again: "/", Table: LockTable{Now: now, Poll: "/dashboard/locks", Filter: Filter{Waiting: true}}}))
	keep("nothing more")(pages.Dashboard(Dashboard{Frame: frame, Again: "/", Table: LockTable{Now: now, Poll: "/dashboard/locks", First: "/?q=" + hostile, Filter: Filter{Text: hostile}}}))
	keep("empty dashboard")(pages.Dashboard(Dashboard{Frame: frame, Again: "/", Table: LockTable{Now: now, Poll: "/dashboard/locks", Example: hostile}}))
	keep("dashboard without locks")(pages.Dashboard(Dashboard{Frame: frame, Again: "/", Table: LockTable{Now: now, Poll: "/dashboard/locks", Missing: true}}))
	keep("users")(pages.Users(Users{
		Frame: frame, Users: []UserRow{{ID: hostile, Email: hostile, Roles: hostile, Disabled: true, Sessions: 2}, {ID: "1", Email: hostile, Me: true}},
		First: "/users", Next: "/users?cursor=" + hostile,
	}))
	keep("sessions of a user")(pages.UserSessions(UserSessions{Frame: quiet, ID: hostile, Email: hostile, Sessions: sessions}))
	keep("password")(pages.Password(Password{Frame: quiet}))
	keep("password refused")(pages.Password(Password{Frame: quiet, Error: hostile, Field: "newPassword"}))
	keep("force")(pages.Force(Force{Frame: quiet, Lock: lock, Reason: hostile, Error: hostile}))
	keep("force without a fence")(pages.Force(Force{Frame: quiet, Lock: Lock{Resource: "process:7", Since: now, ExpiresAt: now}}))
	processPages(keep, pages, frame, quiet)
	keep("problems")(pages.Problems(Problems{Frame: plain, Items: []Problem{{Name: "locked", Title: hostile, Status: 423}}}))
	keep("message")(pages.Message(Message{
		Frame: Frame{Title: hostile, Now: now, RetryAfter: 5}, Kicker: hostile, Heading: hostile, Paragraphs: []string{hostile}, RequestID: hostile, Action: hostile, Href: "/?x=" + hostile,
	}))
	return rendered
}

func elements(t *testing.T, page []byte) []*html.Node {
	t.Helper()
	root, err := html.ParseWithOptions(bytes.NewReader(page), html.ParseOptionEnableScripting(false)) // what is in noscript counts
	if err != nil {
		t.Fatal(err)
	}
	var all []*html.Node
	for n := range root.Descendants() {
		if n.Type == html.ElementNode {
			all = append(all, n)
		}
	}
	return all
}

func attribute(n *html.Node, name string) (string, bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return strings.TrimSpace(b.String())
}

// TestPagesNeedNothingInline holds the pages to the Content-Security-Policy: they
// would not work otherwise, and hostile data must not get beyond text.
func TestPagesNeedNothingInline(t *testing.T) {
	for name, page := range everyPage(t) {
		for _, n := range elements(t, page) {
			src, hasSrc := attribute(n, "src")
			switch {
			case n.Data == "style" || n.Data == "img" || n.Data == "iframe" || n.Data == "base":
				t.Errorf("%s: has a %s", name, n.Data)
			case n.Data == "script" && (!hasSrc || text(n) != ""):
				t.Errorf("%s: has an inline script", name)
			case hasSrc && !strings.HasPrefix(src, "/static/"):
				t.Errorf("%s: loads %s", name, src)
			}
			for _, a := range n.Attr {
				switch {
				case a.Key == "style" || strings.HasPrefix(a.Key, "on") || strings.HasPrefix(a.Key, "hx-on"):
					t.Errorf("%s: %s has the attribute %s", name, n.Data, a.Key)
				case slices.Contains([]string{"href", "action", "formaction", "hx-get"}, a.Key) && (strings.HasPrefix(a.Val, "//") || !strings.HasPrefix(a.Val, "/") && !strings.HasPrefix(a.Val, "#")):
					t.Errorf("%s: %s points to %s", name, n.Data, a.Val)
				case a.Key == "hx-trigger" && strings.Contains(a.Val, "["):
					t.Errorf("%s: the trigger %s needs eval", name, a.Val)
				}
			}
		}
	}
}

// TestPagesAreAccessible checks what can be checked without eyes and ears.
func TestPagesAreAccessible(t *testing.T) {
	for name, page := range everyPage(t) {
		all := elements(t, page)
		ids, labels, counts := map[string]int{}, map[string]bool{}, map[string]int{}
		for _, n := range all {
			counts[n.Data]++
			if id, ok := attribute(n, "id"); ok {
				ids[id]++
			}
			if target, ok := attribute(n, "for"); ok && text(n) != "" {
				labels[target] = true
			}
			if _, ok := attribute(n, "autofocus"); ok {
				counts["autofocus"]++
			}
		}
		for id, n := range ids {
			if n > 1 {
				t.Errorf("%s: the id %s is there %d times", name, id, n)
			}
		}
		if counts["h1"] != 1 || counts["main"] != 1 || counts["title"] != 1 || counts["autofocus"] > 1 {
			t.Errorf("%s: not one h1, main, title and at most one autofocus: %v", name, counts)
		}
		for _, n := range all {
			id, _ := attribute(n, "id")
			label, _ := attribute(n, "aria-label")
			kind, _ := attribute(n, "type")
			switch n.Data {
			case "html":
				if lang, _ := attribute(n, "lang"); lang != "en" {
					t.Errorf("%s: its language is %q", name, lang)
				}
			case "input", "select", "textarea":
				if kind != "hidden" && !labels[id] {
					t.Errorf("%s: the %s %s has no label", name, n.Data, id)
				}
			case "summary", "legend", "h2", "h3":
				if text(n) == "" {
					t.Errorf("%s: a %s without text", name, n.Data)
				}
			case "button", "a":
				if text(n) == "" && label == "" {
					t.Errorf("%s: a %s without a name", name, n.Data)
				}
			case "table", "section", "nav", "fieldset":
				if n.Data == "fieldset" {
					label = text(n) // its legend's
				}
				if _, by := attribute(n, "aria-labelledby"); label == "" && !by {
					t.Errorf("%s: a %s without a name", name, n.Data)
				}
			case "th":
				if _, ok := attribute(n, "scope"); !ok || text(n) == "" {
					t.Errorf("%s: a header cell without scope or text", name)
				}
			}
			for _, refers := range []string{"aria-describedby", "aria-labelledby"} {
				value, _ := attribute(n, refers)
				for _, id := range strings.Fields(value) {
					if ids[id] != 1 {
						t.Errorf("%s: %s refers to %s, which is not there", name, refers, id)
					}
				}
			}
			if strings.HasPrefix(label, "Force the lock") && !strings.Contains(label, hostile) && !strings.Contains(label, "process:7") {
				t.Errorf("%s: the button says %q", name, label)
			}
		}
	}
}

// TestTextOfUsersIsSetApart: text that a user wrote, within a sentence of the page, may run from right
// to left without turning the rest of it. What is all of an element, or a link, stands alone.
func TestTextOfUsersIsSetApart(t *testing.T) {
	apart := []string{"bdi", "strong", "del", "ins", "title", "code", "option", "pre"}
	for name, page := range everyPage(t) {
		if strings.HasPrefix(name, "edit") || strings.HasPrefix(name, "conflict") || name == "new process, signed out" {
			continue
		}
		for _, n := range elements(t, page) {
			class, _ := attribute(n, "class")
			if slices.Contains(apart, n.Data) || text(n) == hostile || class == "banner" { // whose words are the program's
				continue
			}
			for child := range n.ChildNodes() {
				if child.Type == html.TextNode && strings.Contains(child.Data, hostile) {
					t.Errorf("%s: in a %s there is %q", name, n.Data, text(n))
				}
			}
		}
	}
}

func TestHostileTextIsShownAsText(t *testing.T) {
	for name, want := range map[string]map[string]int{ // how often it is the whole text of an element
		"dashboard": {"a": 1, "p": 2, "td": 1, "strong": 1},
		"account":   {"span": 1, "p": 2, "td": 1, "th": 1},
		"force":     {"span": 1, "p": 1, "dd": 1},
		"message":   {"p": 2, "h1": 1, "a": 1, "code": 1},
		"process":   {"h1": 1, "strong": 1, "div": 1},
		"edit":      {"textarea": 1, "option": 1},
		"conflict":  {"textarea": 1, "strong": 1, "del": 1, "ins": 1},
	} {
		found := map[string]int{}
		for _, n := range elements(t, everyPage(t)[name]) {
			if text(n) == hostile {
				found[n.Data]++
			}
		}
		for element, n := range want {
			if found[element] < n {
				t.Errorf("%s: the text is in %v, want at least %d %s", name, found, n, element)
			}
		}
	}
}

// TestNavigation: pages are named by what users do, and the one that is shown is marked.
func TestNavigation(t *testing.T) {
	pages := newPages(t)
	for path, want := range map[string]string{
		"/": "Locks (page), Processes, Account", "/dashboard/locks": "Locks (page), Processes, Account", "/locks/force": "Locks (true), Processes, Account",
		"/processes": "Locks, Processes (page), Account", "/processes/1/edit": "Locks, Processes (true), Account", "/processesx": "Locks, Processes, Account",
		"/account": "Locks, Processes, Account (page)", "/password": "Locks, Processes, Account (true)",
	} {
		page, err := pages.Account(Account{Frame: Frame{Title: "Account", Path: path, User: &User{Email: "ann@example.com", Role: "editor"}}})
		if err != nil {
			t.Fatal(err)
		}
		var shown []string
		for _, n := range elements(t, page) {
			if n.Data != "a" || n.Parent.Data != "nav" {
				continue
			}
			link := text(n)
			if current, ok := attribute(n, "aria-current"); ok {
				link += " (" + current + ")"
			}
			shown = append(shown, link)
		}
		if got := strings.Join(shown, ", "); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if page := everyPage(t)["sign in"]; bytes.Contains(page, []byte("<nav")) {
		t.Error("signed out there is a navigation to pages that cannot be seen")
	}
	if page := everyPage(t)["account"]; !bytes.Contains(page, []byte(`href="/users"`)) {
		t.Error("administrators have no way to the users")
	}
}

func TestReloading(t *testing.T) {
	refresh := func(page []byte) (content, parent string) {
		for _, n := range elements(t, page) {
			if value, _ := attribute(n, "http-equiv"); value == "refresh" {
				content, _ = attribute(n, "content")
				return content, n.Parent.Data
			}
		}
		return "", ""
	}
	pages := everyPage(t)
	if content, parent := refresh(pages["dashboard"]); !strings.HasPrefix(content, "60; url=/dashboard/locks?cursor=") || parent != "noscript" {
		t.Errorf("without JavaScript the dashboard goes to %q (in %s)", content, parent)
	}
	if content, parent := refresh(pages["message"]); content != "5" || parent != "head" {
		t.Errorf("a page that comes back by itself: %q (in %s)", content, parent)
	}
	for _, name := range []string{"force", "sign in", "edit", "edit, lost", "conflict", "new process"} { // what a user has typed is not lost
		if content, _ := refresh(pages[name]); content != "" {
			t.Errorf("%s reloads: %q", name, content)
		}
	}
}

// TestPartialTable: a list that may lack a lock says so to its script, which must not take what it
// lacks for ended.
func TestPartialTable(t *testing.T) {
	pages, locks := newPages(t), []Lock{{Resource: "process:1"}}
	for name, row := range map[string]struct {
		table LockTable
		want  bool
	}{
		"all locks":     {LockTable{Locks: locks}, false},
		"no locks":      {LockTable{}, false},
		"not shared":    {LockTable{Locks: locks, Banner: &Banner{}}, true},
		"not listed":    {LockTable{Missing: true}, true},
		"a search":      {LockTable{Locks: locks, Filter: Filter{Waiting: true}}, true},
		"a first page":  {LockTable{Locks: locks, Next: "/?cursor=1"}, true},
		"another page":  {LockTable{Locks: locks, First: "/"}, true},
		"a page beyond": {LockTable{First: "/"}, true},
	} {
		page, err := pages.LockTable(row.table)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(page, []byte(" data-partial>")); got != row.want {
			t.Errorf("%s: partial is %t: %s", name, got, page)
		}
	}
}

func TestLockTableIsTheSameAlone(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	table := LockTable{Now: now, Poll: "/dashboard/locks?seen=1", Locks: []Lock{{Resource: "process:1", Since: now, ExpiresAt: now.Add(time.Minute)}}}
	pages := newPages(t)
	alone, err := pages.LockTable(table)
	if err != nil {
		t.Fatal(err)
	}
	page, err := pages.Dashboard(Dashboard{Frame: Frame{Title: "Locks", Now: now}, Table: table})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(alone, []byte(`<div id="locks"`)) || !bytes.Contains(page, alone) {
		t.Errorf("a refresh would change the page:\n%s", alone)
	}
}

func TestWords(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for after, want := range map[time.Duration]string{
		-time.Second: "ending", 0: "ending", time.Millisecond: "1 s", 59 * time.Second: "59 s", 59*time.Second + 1: "1 min 00 s",
		61 * time.Second: "1 min 01 s", time.Hour: "1 h 00 min", 2*time.Hour + 5*time.Minute: "2 h 05 min",
	} {
		if got := left(now, now.Add(after)); got != want {
			t.Errorf("%s left: %q, want %q", after, got, want)
		}
	}
	for at, want := range map[time.Time]string{
		now.In(time.FixedZone("", 3600)):     "12:00:00 UTC",
		now.Add(-24 * time.Hour):             "30 Apr 2026, 12:00 UTC",
		now.AddDate(-1, 0, 0):                "1 May 2025, 12:00 UTC",
		now.Add(12*time.Hour - time.Second):  "23:59:59 UTC",
		now.Add(-12*time.Hour - time.Second): "30 Apr 2026, 23:59 UTC",
	} {
		if got := stamp(now, at); got != want {
			t.Errorf("stamp of %s: %q, want %q", at, got, want)
		}
	}
}

func TestAssets(t *testing.T) {
	pages := newPages(t)
	names, err := fs.ReadDir(staticFiles, "static")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range names {
		asset, ok := pages.Asset(entry.Name())
		if !ok || len(asset.Body) == 0 || len(asset.Version) != 12 || asset.Type == "" {
			t.Errorf("%s: %t %q %q", entry.Name(), ok, asset.Version, asset.Type)
		}
		if bytes.Contains(asset.Body, []byte("sourceMappingURL")) || bytes.Contains(asset.Body, []byte("@import")) {
			t.Errorf("%s loads something else", entry.Name())
		}
		if version, ok := strings.CutPrefix(strings.TrimSuffix(entry.Name(), ".min.js"), "htmx-"); ok && strings.HasSuffix(entry.Name(), ".js") {
			if !bytes.Contains(asset.Body, fmt.Appendf(nil, "version:%q", version)) {
				t.Errorf("%s is another version", entry.Name())
			}
		}
	}
	if _, ok := pages.Asset("../templates.go"); ok {
		t.Error("a file outside the folder")
	}
	if _, err := pages.assetURL("nothing.css"); err == nil {
		t.Error("a URL for no file")
	}
}
