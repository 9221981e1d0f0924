package handlers

import (
	"strings"
	"testing"
)

func TestDevice(t *testing.T) {
	for userAgent, want := range map[string]string{
		"": "Unknown device",
		"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0":                                                                     "Firefox on Linux",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0":              "Edge on Windows",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36":                      "Chrome on macOS",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15":                         "Safari on macOS",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/126.0 Mobile/15E148 Safari/604.1":     "Chrome on iPhone",
		"Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36": "Samsung Internet on Android",
		"curl/8.5.0":                       "curl",
		"Go-http-client/1.1":               "Go-http-client",
		"<script>alert(1)</script>":        "<script>alert(1)<",
		strings.Repeat("é", 50) + "/1":     strings.Repeat("é", 40) + "…",
		"   ":                              "Unknown device",
		"Firefox/1 from an unknown system": "Firefox",
	} {
		if got := device(userAgent); got != want {
			t.Errorf("%q is %q, want %q", userAgent, got, want)
		}
	}
}

func TestShellQuote(t *testing.T) {
	if got := shellQuote(`{"email":"o'brien@example.com"}`); got != `'{"email":"o'\''brien@example.com"}'` {
		t.Errorf("%s", got)
	}
}
