package models

import "strings"

// IsName reports whether text is 1 to 64 of A-Z a-z 0-9 and the ASCII characters in others.
func IsName(text, others string) bool {
	if text == "" || len(text) > 64 {
		return false
	}
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(others, c) >= 0:
		default:
			return false
		}
	}
	return true
}
