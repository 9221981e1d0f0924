package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/chromedp/chromedp"

	"gatehouse/services/servicestest"
)

const largestPicture = 150 << 10 // bytes: a README loads at once

// TestPicture takes the picture of the page that the README shows: several locks, one with a
// queue. `make picture` names in GATEHOUSE_PICTURE the file to write.
func TestPicture(t *testing.T) {
	t.Parallel()
	a := start(t)
	users := map[string]*client{}
	admin := a.signIn(t, adminEmail)
	for _, name := range []string{"carol", "dan"} {
		admin.call(t, "POST /users", map[string]any{"email": name + "@example.com", "password": demoPassword, "roles": []string{"editor"}}).is(t, 201)
	}
	for _, name := range []string{"alice", "bob", "carol", "dan"} {
		users[name] = a.signIn(t, name+"@example.com")
	}

	// The browser first: it takes its time on a busy machine, and waiters wait 30 s at most.
	tab := newDesk(t, a, adminEmail).tab
	do(t, tab, chromedp.EmulateViewport(1120, 660), chromedp.Navigate(a.URL+"/"))

	type held struct {
		user, title, reason string
		minutes             int
		waiters             []string
	}
	var ids, tokens []string
	var answers []func() *answer
	locks := []held{
		{"alice", "Order paper", "new supplier", 5, []string{"bob", "dan"}},
		{"bob", "Hire a gardener", "adding the two interviews", 12, nil},
		{"carol", "Repair the gate", "", 2, []string{"alice"}},
		{"dan", "Close the books of October", "waiting for one invoice", 45, nil},
	}
	for i, l := range locks {
		// The first three are of the demo.
		id := fmt.Sprint(i + 1)
		if i >= 3 {
			id = users[l.user].call(t, "POST /processes", map[string]any{"title": l.title}).is(t, 201).text(t, "id")
		}
		path := "/processes/" + id + "/lock"
		grant := users[l.user].call(t, "POST "+path, map[string]any{"ttl": l.minutes * 60, "reason": l.reason}).is(t, 201)
		ids, tokens = append(ids, id), append(tokens, grant.text(t, "lockToken"))
		for n, waiter := range l.waiters {
			answers = append(answers, users[waiter].waitFor(t, "POST "+path, nil, "Prefer: wait=30"))
			servicestest.Eventually(t, func() bool {
				return admin.call(t, "GET "+path+"/status", nil).is(t, 200).number(t, "waiting") == int64(n+1)
			}, waiter+" does not wait")
		}
	}

	for i, l := range locks {
		row := fmt.Sprintf(`document.querySelector('tr[data-resource="process:%s"]')`, ids[i])
		waiting := []string{"nobody", "1 is waiting", "2 are waiting"}[len(l.waiters)]
		until(t, tab, fmt.Sprintf(`%s?.innerText.includes(%q) && %[1]s.querySelector('[data-label="Waiting"]').innerText === %[3]q`, row, l.title, waiting))
	}
	picture := capture(t, tab)
	if len(picture) > largestPicture {
		t.Errorf("the picture has %d bytes", len(picture))
	}
	if name := os.Getenv("GATEHOUSE_PICTURE"); name != "" {
		if err := os.WriteFile(name, picture, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// Each waiter has a turn, in order, unless it has waited for 30 s before.
	for i, l := range locks {
		token := tokens[i]
		release := func(name string) {
			t.Helper()
			users[name].call(t, "DELETE /processes/"+ids[i]+"/lock", nil, "X-Lock-Token: "+token).is(t, 204)
		}
		release(l.user)
		for _, waiter := range l.waiters {
			answer := answers[0]()
			answers = answers[1:]
			if answer.Status == 201 {
				token = answer.text(t, "lockToken")
				release(waiter)
			}
		}
	}
}
