package e2e

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"gatehouse/services/servicestest"
)

func browserSwagger(t *testing.T, a *app) {
	alice := a.signIn(t, "alice@example.com")
	tab := openTab(t, a)
	do(t, tab,
		chromedp.Navigate(a.URL+"/swagger/index.html"),
		click(".auth-wrapper .authorize"),
		fill(".auth-container input", "Bearer "+alice.token),
		click(".auth-container button.authorize"),
		click(".auth-container button.btn-done"),
		click("[id$='get_auth_session'] .opblock-summary"),
		click("[id$='get_auth_session'] .try-out__btn"),
		click("[id$='get_auth_session'] .execute"),
	)
	live := `document.querySelector("[id$='get_auth_session'] .live-responses-table")`
	until(t, tab, live+` !== null`)
	if status := read[string](t, tab, live+`.querySelector("tbody .response-col_status").innerText`); !strings.HasPrefix(strings.TrimSpace(status), "200") {
		t.Errorf("Try it out answers %s", status)
	}
	if body := read[string](t, tab, live+`.innerText`); !strings.Contains(body, "alice@example.com") {
		t.Errorf("Try it out shows %s", body)
	}
	screenshot(t, tab, "swagger")
}

// browserLooks: both colour schemes are what they say, on a wide and on a narrow
// screen, and nothing has to be scrolled sideways.
func browserLooks(t *testing.T, a *app) {
	tab := openTab(t, a)
	look := func(name string) {
		t.Helper()
		for _, scheme := range []string{"light", "dark"} {
			emulate(t, tab, "prefers-color-scheme", scheme)
			bright := screenshot(t, tab, name+"-"+scheme)
			if scheme == "light" != (bright > 0.7) || scheme == "dark" != (bright < 0.3) {
				t.Errorf("%s, %s: a mean brightness of %.2f", name, scheme, bright)
			}
		}
		if wide := read[float64](t, tab, `document.documentElement.scrollWidth - window.innerWidth`); wide > 0 {
			t.Errorf("%s: %v pixels too wide", name, wide)
		}
	}
	look("sign-in")
	signInOnPage(t, tab, adminEmail)
	look("nothing-locked")
	l, second := takeLock(t, a, "Repair the roof"), takeLock(t, a, strings.Repeat("A long title of an important process ", 5))
	until(t, tab, fmt.Sprintf(`document.querySelector(%q) !== null && document.querySelector(%q) !== null`, l.row, second.row))
	look("dashboard")
	do(t, tab, chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2), chromedp.EmulateOrientation(emulation.ScreenOrientationTypePortraitPrimary, 0)))
	look("dashboard-narrow")
	do(t, tab, click(l.forceControl))
	until(t, tab, `document.querySelector("#reason") !== null`)
	look("force-narrow")
	do(t, tab, chromedp.EmulateViewport(1280, 900))
	look("force")
	l.release(t)
	second.release(t)
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

// capture returns the whole page as a PNG.
func capture(t testing.TB, tab context.Context) []byte {
	t.Helper()
	until(t, tab, `document.getAnimations().length === 0`) // else colours are on their way
	ctx, cancel := context.WithTimeout(tab, servicestest.Patience)
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
