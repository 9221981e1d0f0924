package email_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/width"

	"gatehouse/models"
	"gatehouse/models/email"
	"gatehouse/services/servicestest"
)

func TestNormalize(t *testing.T) {
	for _, row := range []struct{ typed, want string }{
		{"ann@example.com", "ann@example.com"},
		{"  Ann@EXAMPLE.com\u3000", "ann@example.com"},
		{"ａｎｎ＠ｅｘａｍｐｌｅ．ｃｏｍ", "ann@example.com"},
		{"𝐚nn@example.com", "ann@example.com"},
		{"ann@example․com", "ann@example.com"}, // a leader of one dot
		{"re\u0301ne\u0301@example.com", "r\u00e9n\u00e9@example.com"},
		{"Straße@example.com", "straße@example.com"},
		{"анна@пример.рф", "анна@пример.рф"},
		{"Άννα@example.gr", "άννα@example.gr"},
		{"田中taro@例え.jp", "田中taro@例え.jp"},
		{"ユーザー1@example.jp", "ユーザー1@example.jp"},
		{"김철수kim@example.kr", "김철수kim@example.kr"},
		{"o'neil+a-b_c.1@ex-ample.co.uk", "o'neil+a-b_c.1@ex-ample.co.uk"},
		{"مثال٣@example.com", "مثال٣@example.com"},
	} {
		if got, err := email.Normalize(row.typed); err != nil || got != row.want {
			t.Errorf("%+q: %+q, %v, want %+q", row.typed, got, err, row.want)
		}
	}
}

func TestNormalizeRefusesLookAlikes(t *testing.T) {
	says := map[string][]string{
		"mix": {
			"\u0430nn@example.com", "ann@ex\u0430mple.com", "\u0430.nn@example.com", "ann@\u03b5xample.com", "\u0251\u03bdv@example.com",
			"ａ\u0430@example.com", "\u13aann@example.com", "田\u0430@example.com", "ひ김@example.com", "ann\u0665@example.com", "مثال٣3@example.com", "a\u1d2bn@example.com",
		},
		"invisible": {
			"ann\u200b@example.com", "a\u200cnn@example.com", "a\u200dnn@example.com", "\ufeffann@example.com", "a\u00adnn@example.com", "\u202eann@example.com",
			"ann\u2060@example.com", "a\u034fnn@example.com", "ann\ufe0f@example.com", "ann\u3164@example.com", "ann\uffa0@example.com", "ann\u115f@example.com",
			"ann\u2800@example.com", "a\u0000nn@example.com", "ann\x7f@example.com", "ann@example.com\n", "\tann@example.com", "a\u00a0nn@example.com", "a\u3000nn@example.com", "a\u2028nn@example.com",
			"a\U000e0101nn@example.com", "a\U000e0041nn@example.com", "ann\ue000@example.com", "ann@exa\u180emple.com", "ann@example.com\u200b", "ann\u0085x@example.com", "a\u0378nn@example.com",
		},
		"marks": {"ali\u0307ce@example.com", "alice\u0332@example.com", "\u0430\u0301\u043d\u043d\u0430@example.com"},
		"must be an e-mail address": {
			"", "ann", "ann@", "@example.com", "Ann <ann@example.com>", `"a b"@example.com`, "a b@example.com", "ann@example.com, bob@example.com",
			"ann\u2010lee@example.com", "ann😀@example.com", "a∕b@example.com", "a\xffb@example.com", strings.Repeat("a", 250) + "@example.com", strings.Repeat("\ufdfa", 100) + "@example.com",
			strings.Repeat("a", 1<<20) + "@example.com",
		},
	}
	for want, addresses := range says {
		for _, address := range addresses {
			got, err := email.Normalize(address)
			var invalid *models.ValidationError
			if !errors.As(err, &invalid) || len(invalid.Errors) != 1 || invalid.Errors[0].Field != "email" || !strings.Contains(invalid.Errors[0].Message, want) {
				t.Errorf("%.60q: %+q, %v, want %q", address, got, err, want)
			}
		}
	}
}

// What is typed in another way is the same address.
func TestKey(t *testing.T) {
	for _, same := range [][]string{
		{"ann@example.com", "ANN@Example.COM", "ａｎｎ@example.com", "𝒶𝓃𝓃@example.com", "ⓐⓝⓝ@example.com", "ann＠example.com", "ann@example．com"},
		{"rené@example.com", "rene\u0301@example.com", "RENÉ@example.com", "RENE\u0301@EXAMPLE.com"},
		{"straße@example.com", "STRASSE@example.com", "STRAẞE@example.com", "strasse@example.com"},
		{"ὀδυσσεύς@example.gr", "ὈΔΥΣΣΕΎΣ@example.gr", "ὀδυσσεύσ@example.gr"},
		{"ﬁona@example.com", "fiona@example.com", "FIONA@example.com"},
		{"カタカナ@example.jp", "ｶﾀｶﾅ@example.jp"},
	} {
		for _, address := range same {
			if got := email.Key(address); got != email.Key(same[0]) {
				t.Errorf("%+q is %+q, %+q is %+q", address, got, same[0], email.Key(same[0]))
			}
		}
	}
	if email.Key("\u0430nn@example.com") == email.Key("ann@example.com") || email.Key("ann\u200b@example.com") == email.Key("ann@example.com") {
		t.Error("what is refused for a new user is found for another one")
	}
}

// Each character of Unicode, in a Latin word: it is refused, or the address is stored
// in a form that is found again however it is typed, and whose word is Latin or of a
// script that is written together with it.
func TestEveryCharacter(t *testing.T) {
	accepted, all := 0, servicestest.LongProof()
	for r := rune(0); r <= unicode.MaxRune; r++ {
		common := r < 0x3400 || r >= 0xf900 && r <= 0xffff || r >= 0x1d400 && r < 0x1d800 || r >= 0xe0000 && r < 0xe0200
		if !utf8.ValidRune(r) || !common && !all {
			continue
		}
		typed := "a" + string(r) + "n@example.com"
		stored, err := email.Normalize(typed)
		if again := email.Key(email.Key(typed)); again != email.Key(typed) {
			t.Errorf("%+q: key %+q, its own %+q", typed, email.Key(typed), again)
		}
		if err != nil {
			continue
		}
		accepted++
		if again, err := email.Normalize(stored); err != nil || again != stored {
			t.Errorf("%+q: stored as %+q, and that as %+q, %v", typed, stored, again, err)
		}
		forms := []string{stored, norm.NFC.String(typed), norm.NFD.String(typed), norm.NFKC.String(typed), norm.NFKD.String(typed), width.Widen.String(typed)}
		if !strings.Contains(stored, "ı") { // which shares its upper case with i
			forms = append(forms, strings.ToUpper(stored), strings.ToTitle(typed))
		}
		for _, form := range forms {
			if email.Key(form) != email.Key(stored) {
				t.Errorf("%+q: key %+q, but of %+q %+q", typed, email.Key(stored), form, email.Key(form))
			}
		}
		if i := strings.IndexFunc(stored, func(r rune) bool {
			return r >= utf8.RuneSelf && !unicode.In(r, unicode.Latin, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Bopomofo, unicode.Hangul, unicode.Inherited, unicode.Common)
		}); i >= 0 {
			t.Errorf("%+q: stored with %+q", typed, stored[i:])
		}
	}
	if accepted < 3_000 {
		t.Errorf("%d accepted", accepted)
	}
}

func FuzzNormalize(f *testing.F) {
	for _, seed := range []string{"ann@example.com", "\u0130@\u1e9e.com", "ａ@ｂ", "e\u0301@x", "\u0345\u03b1@x.gr", "ﬃ@x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		if strings.ToValidUTF8(typed, "") == typed && email.Key(email.Key(typed)) != email.Key(typed) {
			t.Errorf("key of %+q: %+q, and of that %+q", typed, email.Key(typed), email.Key(email.Key(typed)))
		}
		stored, err := email.Normalize(typed)
		if err != nil {
			return
		}
		if again, err := email.Normalize(stored); err != nil || again != stored || email.Key(stored) != email.Key(strings.TrimSpace(typed)) {
			t.Errorf("%+q: %+q, again %+q, %v; keys %+q, %+q", typed, stored, again, err, email.Key(stored), email.Key(typed))
		}
	})
}

func ExampleKey() {
	fmt.Println(email.Key("ＡＮＮ@example.com"))
	// Output: ann@example.com
}
