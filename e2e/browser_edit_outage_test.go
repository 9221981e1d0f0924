package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	cdp "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"gatehouse/services/servicestest"
)

// TestEditingOutages: what a user types outlives Redis, the server and the tab.
func TestEditingOutages(t *testing.T) {
	t.Parallel()
	redis := servicestest.StartRedis(t)
	env := []string{"ADDR=" + servicestest.FreeAddr(t), "DATABASE_URL=" + demoDatabase(t), "REDIS_URL=redis://" + redis.Addr, "REDIS_TIMEOUT=2s", "LOCK_PROTECTION=1s", "LOCK_ASK_TIMEOUT=1s", "RATE_LIMIT_MAX=100000"}
	a := launch(t, env...)
	a.WaitReady()

	t.Run("asked for, and no answer", func(t *testing.T) { editUnanswered(t, a) })

	t.Run("Redis is killed while a user types", func(t *testing.T) {
		alice := newDesk(t, a, "alice@example.com", "status of 409")
		process := alice.newProcess("Dig the pond")
		other := launch(t, append(env, "ADDR="+servicestest.FreeAddr(t))...)
		other.WaitReady()
		bob := other.signIn(t, "bob@example.com")
		alice.edit(process)
		alice.do(fill("#description", "Three feet"))
		reader := newDesk(t, other, "viewer@example.com", "net::ERR") // once that server is gone
		reader.look(process)
		reader.do(click(".tell button"))
		reader.until(`document.querySelector(".tell")?.innerText.includes("You will be told")`)
		redis.Kill()
		alice.do(fill("#description", " deep"))
		alice.kept(process, "Three feet deep")
		alice.noAlarm()
		// No page says what is not sure now: that it is free, or that no other user can save.
		reader.until(`document.querySelector(".reader > .banner:not([id])")?.innerText.includes("although it is not shown") && document.querySelector("#free") === null`)
		if !read[bool](t, reader.tab, `sessionStorage["gatehouse.watched.`+process+`"] !== undefined`) {
			t.Error("the reader's wish is forgotten")
		}
		alice.until(`!document.querySelector("#lock-line").innerText.includes("only you") && document.querySelector("main .banner:not([id])") !== null`)
		bothSave(t, alice, process, bob)
		alice.do(click("button[value=close]"))
		alice.until(`document.querySelector(".reader .text")?.innerText === "Three feet deep!"`)
		other.Stop()
		redis.Start()
		servicestest.Eventually(t, func() bool {
			return alice.send(t, "GET /readyz", nil).at(t, "components.redis.status") == "ok"
		}, "Redis is not back")
	})

	t.Run("the tab crashes while a user types", func(t *testing.T) {
		alice := newDesk(t, a, "alice@example.com")
		process := alice.newProcess("Paint the door")
		alice.edit(process)
		typed := alice.typeAlong(5 * time.Second)
		crashed := time.Now()
		go func() { _, _ = chromedp.Call(alice.tab, cdp.Crash, struct{}{}) }() // nobody answers
		alice.hasAllBut(process, typed, crashed, 3*time.Second)
	})

	t.Run("the server is killed while a user types", func(t *testing.T) {
		alice := newDesk(t, a, "alice@example.com", "net::ERR", "Failed to load resource")
		process := alice.newProcess("Sow the lawn")
		alice.edit(process)
		typed := alice.typeAlong(4 * time.Second)
		killed := time.Now()
		a.Kill()
		alice.do(fill("#description", "and then some"))
		alice.until(`document.querySelector("#away")?.innerText.includes("The server cannot be reached")`)
		if said := alice.text("#lost"); said != "" {
			t.Errorf("a false alarm: %s", said)
		}
		// The browser has each key at once: it would not be asked if its tab crashed now.
		alice.do(fill("#description", ", as well"))
		whole := alice.typed()
		if kept := read[string](t, alice.tab, `JSON.parse(Object.entries(localStorage).find(([key]) => key.startsWith("gatehouse.draft."))[1]).description`); kept != whole {
			t.Errorf("this browser keeps %q, want %q", kept, whole)
		}
		alice.do(click("button[value=stay]"))
		alice.until(`document.querySelector("#unsaved") !== null`)
		if got := alice.typed(); got != whole {
			t.Errorf("the form has %q, want %q", got, whole)
		}

		again := launch(t, env...)
		again.WaitReady()
		alice.client = again.signIn(t, "alice@example.com")
		first := alice.draft(process)
		alice.hasAllBut(process, typed, killed, 3*time.Second)
		if !strings.HasPrefix(whole, first) {
			t.Errorf("the draft is %q of %q", first, whole)
		}
		servicestest.Eventually(t, func() bool { return alice.draft(process) == whole }, "what was typed without the server does not get there")
		alice.until(`document.querySelector("#away") === null`)

		// The server goes again, and this time the tab, too.
		again.Kill()
		alice.do(fill("#description", "."))
		alice.until(`document.querySelector("#away") !== null`)
		alice.do(chromedp.Navigate("about:blank"))
		last := launch(t, env...)
		last.WaitReady()
		alice.client = last.signIn(t, "alice@example.com")
		alice.look(process)
		read[bool](t, alice.tab, `(sessionStorage.clear(), true)`) // as in another tab: in the same one it just goes on
		alice.do(click("#lock form.actions button"))
		alice.until(`document.querySelector("#copy button") !== null`)
		alice.do(click("#copy button"))
		alice.until(`document.querySelector("#description").value === %q && document.querySelector("#copy") === null`, whole+".")
		alice.kept(process, whole+".")
		alice.do(click("button[value=close]"))
		alice.until(`document.querySelector(".reader .text") !== null`)
		last.Stop()
	})
}

// typedWord is a word and when it was typed.
type typedWord struct {
	text string
	at   time.Time
}

// typeAlong types words without a pause that the page would take for one, as quickly as users do.
func (d desk) typeAlong(long time.Duration) (typed []typedWord) {
	d.t.Helper()
	next := time.NewTicker(200 * time.Millisecond)
	defer next.Stop()
	for began := time.Now(); time.Since(began) < long; <-next.C {
		word := fmt.Sprintf("word%d ", len(typed))
		d.do(fill("#description", word))
		typed = append(typed, typedWord{word, time.Now()})
	}
	return typed
}

// hasAllBut checks that the draft has every word but those of the last moments before an end.
func (d desk) hasAllBut(process string, typed []typedWord, end time.Time, last time.Duration) {
	d.t.Helper()
	draft := d.draft(process)
	for _, word := range typed {
		if !strings.Contains(draft, word.text) && end.Sub(word.at) > last+servicestest.Slack(typed[0].at) {
			d.t.Errorf("the draft has not %q, typed %s before the end: %q", word.text, end.Sub(word.at), draft)
		}
	}
}
