package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"gatehouse/services/servicestest"
)

// browser is a Chromium, with an empty profile, that tests share: each opens tabs of its own. The
// context is what chromedp knows it by.
type browser struct {
	start func() (context.Context, error)
	end   func()
}

var (
	// chromium is the whole one, which keeps pages for "Back".
	chromium = newBrowser("chromium")
	// shell is the one without windows and menus, for half of the work, where the machine has it.
	shell = newBrowser("chromium-headless-shell", "chromium")
)

func newBrowser(programs ...string) *browser {
	b := &browser{end: func() {}}
	b.start = sync.OnceValues(func() (context.Context, error) {
		allocator, cancel := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
			chromedp.ExecPath(programs[max(0, slices.IndexFunc(programs, installed))]),
			chromedp.NoSandbox, // Chromium refuses to run as root with it
			chromedp.DisableGPU,
			chromedp.Flag("disable-component-update", true), // no network but ours
			// What it would load with each window for its own menus takes more than our pages do.
			chromedp.Flag("disable-features", "Translate,PreloadTopChromeWebUI,WebUIOmniboxPopup,WebUIOmniboxAimPopup,SpareRendererForSitePerProcess"),
			chromedp.WSURLReadTimeout(servicestest.Patience),
		)...)
		first, cancelFirst := chromedp.NewContext(allocator)
		b.end = func() {
			cancelFirst()
			cancel()
		}
		return first, chromedp.Do(first)
	})
	return b
}

func installed(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// openTab opens an emptyTab on the instance's start page.
func openTab(t *testing.T, a *app, expected ...string) context.Context {
	t.Helper()
	tab := emptyTab(t, shell, expected...)
	do(t, tab, chromedp.Navigate(a.URL+"/"))
	return tab
}

// emptyTab opens a tab that shares no cookie with another. When the test ends it fails for what
// the browser complained about: an error on the console, an exception, a violation of the
// Content-Security-Policy. A complaint that contains one of expected is none.
func emptyTab(t *testing.T, in *browser, expected ...string) context.Context {
	t.Helper()
	servicestest.Need(t, "chromium", "chromium")
	browser, err := in.start()
	if err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	tab, _ := newTab(t, browser, chromedp.WithNewBrowserContext(), expected)
	return tab
}

// newTab opens an empty tab. The tests end it, if it is not closed before.
func newTab(t *testing.T, browser context.Context, with chromedp.ContextOption, expected []string) (tab context.Context, closeTab func()) {
	t.Helper()
	var heard complaints
	tab, cancel := chromedp.NewContext(browser, with, chromedp.WithListener(heard.listen))
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := evaluate[string](tab, "document.body.innerText")
			t.Logf("the page says:\n%s", text)
		}
		cancel()
		heard.report(t, expected)
	})
	// The first call opens the tab, which lives as long as its context: no timeout.
	if err := chromedp.Do(tab, chromedp.EmulateViewport(1280, 900)); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(tab, audits.Enable, struct{}{}); err != nil {
		t.Fatal(err)
	}
	return tab, cancel
}

// do takes steps in the tab, one after the other.
func do(t testing.TB, tab context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab, servicestest.Patience)
	defer cancel()
	for _, step := range steps {
		err := chromedp.Do(ctx, step)
		for err != nil && strings.Contains(err.Error(), "Could not find node with given id") && ctx.Err() == nil {
			err = chromedp.Do(ctx, step) // the page replaced it after it was found
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func evaluate[T any](tab context.Context, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(tab, servicestest.Patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](expression))
}

// read evaluates an expression in the page.
func read[T any](t testing.TB, tab context.Context, expression string) T {
	t.Helper()
	value, err := evaluate[T](tab, expression)
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// back goes so many pages back. The page may be gone before the browser answers.
func back(t testing.TB, tab context.Context, pages int) {
	t.Helper()
	if _, err := evaluate[bool](tab, fmt.Sprintf(`(history.go(-%d), true)`, pages)); err != nil && !strings.Contains(err.Error(), "navigated or closed") {
		t.Fatal(err)
	}
}

// until waits until the condition, an expression, is true in the page, also
// across a change of page.
func until(t testing.TB, tab context.Context, condition string) {
	t.Helper()
	servicestest.Eventually(t, func() bool {
		ok, err := evaluate[bool](tab, condition) // an error: the page is being replaced
		return err == nil && ok
	}, "never true in the page: "+condition)
}

func click(css string) chromedp.Action[chromedp.Void] { return chromedp.Click(chromedp.CSS(css)) }

func fill(css, text string) chromedp.Action[chromedp.Void] {
	return chromedp.SendKeys(chromedp.CSS(css), text)
}

// press is a key, as a user without a mouse presses it.
func press(keys ...string) chromedp.Action[chromedp.Void] {
	return chromedp.KeyEvent(strings.Join(keys, ""))
}

// switchOffScripts turns JavaScript off from the next page on. What the test
// evaluates still runs.
func switchOffScripts(t testing.TB, tab context.Context) {
	t.Helper()
	if _, err := chromedp.Call(tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	do(t, tab, chromedp.Reload())
}

// complaints collects what a browser tells developers.
type complaints struct {
	mu   sync.Mutex
	said []string
}

// listen is called by the goroutine that reads the browser's messages.
func (c *complaints) listen(event any) {
	var said string
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Source == log.EntrySourceSecurity {
			said = fmt.Sprintf("%s: %s (%s)", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeAssert {
			said = "console:"
			for _, arg := range e.Args {
				said += fmt.Sprintf(" %s %s", arg.Value, arg.Description)
			}
		}
	case *runtime.EventExceptionThrown:
		said = "exception: " + e.ExceptionDetails.Text
		if thrown := e.ExceptionDetails.Exception; thrown != nil {
			said += " " + thrown.Description
		}
	case *audits.EventIssueAdded:
		if policy := e.Issue.Details.ContentSecurityPolicyIssueDetails; policy != nil {
			said = fmt.Sprintf("Content-Security-Policy: %s blocked %q", policy.ViolatedDirective, policy.BlockedURL)
		}
	}
	if said == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said = append(c.said, said)
}

func (c *complaints) report(t *testing.T, expected []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, said := range c.said {
		if !slices.ContainsFunc(expected, func(part string) bool { return strings.Contains(said, part) }) {
			t.Errorf("the browser complains: %s", said)
		}
	}
}
