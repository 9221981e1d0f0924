package handlers

import "strings"

// device describes a User-Agent header in plain words, such as "Firefox on Linux" or "curl".
// It is only for display: a client can send any header.
func device(userAgent string) string {
	browser := firstIn(userAgent,
		// The order matters: most browsers name other ones, too.
		"Edg/", "Edge", "OPR/", "Opera", "SamsungBrowser/", "Samsung Internet", "Firefox/", "Firefox", "FxiOS/", "Firefox",
		"Chrome/", "Chrome", "CriOS/", "Chrome", "Safari/", "Safari")
	system := firstIn(userAgent,
		"iPhone", "iPhone", "iPad", "iPad", "Android", "Android", "Windows", "Windows", "Macintosh", "macOS",
		"CrOS", "ChromeOS", "Linux", "Linux")
	switch {
	case browser != "" && system != "":
		return browser + " on " + system
	case browser != "":
		return browser
	}
	program, _, _ := strings.Cut(strings.TrimSpace(userAgent), "/")
	if runes := []rune(program); len(runes) > 40 {
		program = string(runes[:40]) + "…"
	}
	if program == "" {
		return "Unknown device"
	}
	return program
}

// firstIn takes pairs of a substring and a name, and returns the name of the first substring
// that is in text.
func firstIn(text string, pairs ...string) string {
	for i := 0; i+1 < len(pairs); i += 2 {
		if strings.Contains(text, pairs[i]) {
			return pairs[i+1]
		}
	}
	return ""
}
