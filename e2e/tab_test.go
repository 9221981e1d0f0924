package e2e

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"gatehouse/services/servicestest"
)

const (
	pagePatience = 45 * time.Second // for anything on a page, on a machine busy with other tests
	pagePoll     = 50 * time.Millisecond
)

// startBrowser starts a Chromium with an empty profile and ends it when the test
// does. The context is what chromedp knows it by.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	chromium := servicestest.Need(t, "chromium", "chromium")
	allocator, cancelAllocator := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium),
		chromedp.NoSandbox, // Chromium refuses to run as root with it
		chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true), // no network but ours
		chromedp.WSURLReadTimeout(pagePatience),
	)...)
	browser, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		cancel()
		cancelAllocator()
	})
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("start %s: %v", chromium, err)
	}
	return browser
}

// openTab opens a tab that shares no cookie with another, on the instance's
// start page. When the test ends it fails for what the browser complained about:
// an error on the console, an exception, a violation of the
// Content-Security-Policy. A complaint that contains one of expected is none.
func openTab(t *testing.T, browser context.Context, a *app, expected ...string) context.Context {
	t.Helper()
	var heard complaints
	tab, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext(), chromedp.WithListener(heard.listen))
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
	do(t, tab, chromedp.Navigate(a.URL+"/"))
	return tab
}

// do takes steps in the tab, one after the other.
func do(t testing.TB, tab context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(tab, pagePatience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

func evaluate[T any](tab context.Context, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(tab, pagePatience)
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

// until waits until the condition, an expression, is true in the page, also
// across a change of page.
func until(t testing.TB, tab context.Context, condition string) {
	t.Helper()
	deadline := time.NewTimer(pagePatience)
	defer deadline.Stop()
	poll := time.NewTicker(pagePoll)
	defer poll.Stop()
	for {
		ok, err := evaluate[bool](tab, condition) // an error: the page is being replaced
		if err == nil && ok {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("never true in the page: %s (%v)", condition, err)
		case <-poll.C:
		}
	}
}

func click(css string) chromedp.Action[chromedp.Void] { return chromedp.Click(chromedp.CSS(css)) }

func fill(css, text string) chromedp.Action[chromedp.Void] {
	return chromedp.SendKeys(chromedp.CSS(css), text)
}

// press is a key, as somebody with nothing but a keyboard presses it.
func press(keys ...string) chromedp.Action[chromedp.Void] {
	return chromedp.KeyEvent(strings.Join(keys, ""))
}

// emulate sets a media feature, such as prefers-color-scheme.
func emulate(t testing.TB, tab context.Context, feature, value string) {
	t.Helper()
	_, err := chromedp.Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: feature, Value: value}},
	})
	if err != nil {
		t.Fatal(err)
	}
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

// capture returns the whole page as a PNG.
func capture(t testing.TB, tab context.Context) []byte {
	t.Helper()
	until(t, tab, `document.getAnimations().length === 0`) // else colours are on their way
	ctx, cancel := context.WithTimeout(tab, pagePatience)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	return picture
}

// screenshot saves the whole page and returns its mean brightness, 0 to 1. The
// pictures are kept in the folder that GATEHOUSE_SCREENSHOTS names, if it is set.
func screenshot(t *testing.T, tab context.Context, name string) float64 {
	t.Helper()
	picture := capture(t, tab)
	dir := os.Getenv("GATEHOUSE_SCREENSHOTS")
	if dir == "" {
		dir = t.TempDir()
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o600); err != nil {
		t.Fatal(err)
	}
	decoded, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		t.Fatal(err)
	}
	var sum, count float64
	area := decoded.Bounds()
	for y := area.Min.Y; y < area.Max.Y; y += 8 {
		for x := area.Min.X; x < area.Max.X; x += 8 {
			r, g, b, _ := decoded.At(x, y).RGBA()
			sum += float64(r+g+b) / (3 * 0xffff)
			count++
		}
	}
	return sum / count
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
