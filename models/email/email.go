// Package email knows how e-mail addresses are written, stored and compared, so that
// no two users have addresses that look the same.
package email

import (
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"gatehouse/models"
)

const maxBytes = 254 // of an address, RFC 5321

// Normalize returns a new user's address as it is stored, or a *models.ValidationError
// on email. Spaces around it are dropped, it is in lower case and in the normal form
// NFKC, in which full-width and composed characters have one form. What could look
// like another address is refused: control, format and invisible characters, symbols
// outside ASCII, and words of mixed scripts.
//
// The part before the @ is a word, and so is each name between the dots after it. A
// word may be of one script or, as Unicode's UTS 39 has it for "highly restrictive",
// of Latin with what is written together in Chinese, Japanese or Korean. Its decimal
// digits are of one kind, which is ASCII in a word with Latin letters.
func Normalize(address string) (string, error) {
	address = strings.TrimFunc(address, func(r rune) bool { return unicode.Is(unicode.Zs, r) })
	if len(address) > 4*maxBytes || !utf8.ValidString(address) {
		return "", models.Invalid("email", "must be an e-mail address")
	}
	stored := settle(address, lower)
	if strings.ContainsFunc(address, isHidden) || strings.ContainsFunc(stored, isHidden) {
		return "", models.Invalid("email", "must not have control, format or invisible characters")
	}
	if strings.ContainsFunc(stored, isLooseMark) {
		return "", models.Invalid("email", "must not have accents and marks that belong to no letter")
	}
	parsed, err := mail.ParseAddress(stored)
	if err != nil || parsed.Address != stored || len(stored) > maxBytes || strings.ContainsAny(stored, "\"<>") || strings.ContainsFunc(stored, isSymbol) {
		return "", models.Invalid("email", "must be an e-mail address")
	}
	local, domain, _ := strings.Cut(stored, "@")
	for _, word := range append(strings.Split(domain, "."), local) {
		if isMixed(word) {
			return "", models.Invalid("email", "must not mix scripts within a word, such as Latin and Cyrillic")
		}
	}
	return stored, nil
}

// Key is what addresses are compared by, be they good ones or not: their text in the
// normal form NFKC with the differences of case folded. Key(Key(x)) is Key(x).
func Key(address string) string { return settle(settle(address, lower), fold) }

func lower(text string) string { return strings.ToLower(text) }
func fold(text string) string  { return cases.Fold().String(text) }

// settle applies change and the normal form until both leave the text as it is: one
// can undo the other.
func settle(text string, change func(string) string) string {
	if isASCII(text) {
		return strings.ToLower(text)
	}
	for range 4 { // it takes two
		next := norm.NFKC.String(change(norm.NFKC.String(text)))
		if next == text {
			break
		}
		text = next
	}
	return text
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
}

// isHidden reports whether a character shows nothing, or not what it is.
func isHidden(r rune) bool {
	const brailleBlank = '\u2800'
	return !unicode.IsPrint(r) || r == brailleBlank || unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// isLooseMark reports whether a character is an accent or the like that any letter could
// have, but that makes no letter of its own with the one before it: often it is not seen.
func isLooseMark(r rune) bool { return unicode.IsMark(r) && unicode.Is(unicode.Inherited, r) }

// isSymbol reports whether a character outside ASCII is none that words are made of:
// dots and dashes among them look like those that addresses have.
func isSymbol(r rune) bool {
	return r >= utf8.RuneSelf && !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r)
}

// together are the scripts that may be in one word.
func together() []map[string]bool {
	return []map[string]bool{
		{"Latin": true, "Han": true, "Hiragana": true, "Katakana": true},
		{"Latin": true, "Han": true, "Bopomofo": true},
		{"Latin": true, "Han": true, "Hangul": true},
	}
}

func isMixed(word string) bool {
	if isASCII(word) {
		return false
	}
	scripts, digits := map[string]bool{}, map[rune]bool{}
	for _, r := range word {
		if unicode.IsDigit(r) {
			digits[zero(r)] = true
		}
		if script := scriptOf(r); script != "" {
			scripts[script] = true
		}
	}
	if len(digits) > 1 || len(digits) == 1 && !digits['0'] && scripts["Latin"] {
		return true
	}
	if len(scripts) <= 1 {
		return false
	}
	for _, allowed := range together() {
		if subset(scripts, allowed) {
			return false
		}
	}
	return true
}

// zero is the first of the ten digits of r's kind: Unicode has each ten in a row, all
// in one table of which it is told apart by the gaps.
func zero(r rune) rune {
	for unicode.IsDigit(r-1) && (r-1)/16 == r/16 {
		r--
	}
	return r
}

// scriptOf is the script of a letter or mark, "" for what all scripts share.
func scriptOf(r rune) string {
	for name, table := range unicode.Scripts {
		if name != "Common" && name != "Inherited" && unicode.Is(table, r) {
			return name
		}
	}
	return ""
}

func subset(scripts, of map[string]bool) bool {
	for script := range scripts {
		if !of[script] {
			return false
		}
	}
	return true
}
