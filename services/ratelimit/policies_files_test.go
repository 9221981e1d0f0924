package ratelimit

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A number is written in one way only, and means what everybody reads.
func TestParsePoliciesTakesPlainNumbersOnly(t *testing.T) {
	const whole = "must be a whole number"
	const plain = "must be plain digits"
	for _, row := range []struct {
		written, refused string // "" is taken as 10
	}{
		{"10", ""},
		{"10 # a comment", ""},
		{"&ten 10", ""},
		{"010", plain},
		{"08", whole},
		{"00", plain},
		{"0x10", plain},
		{"0o10", plain},
		{"0b11", plain},
		{"1_000", plain},
		{"1__0", plain},
		{"1e3", whole},
		{"+10", plain},
		{"1000000000000000000000", ""}, // refused, but as a number
		{"10.0", whole},
		{".5", whole},
		{".inf", whole},
		{`"10"`, whole},
		{"'010'", whole},
		{"1:30", whole},
		{"1m", whole},
		{"0X1F", whole},
		{"１０", whole},
		{"true", whole},
		{"yes", whole},
		{"|\n          10", whole},
		{"!!int 10", "tags"},
		{"!!str 10", "tags"},
		{"~", "limit 0"},
		{"", "limit 0"},
		{"-5", "limit -5"},
	} {
		for field, text := range map[string]string{
			"limit": "policies:\n  - name: api\n    limit: %s\n    window: 1m\n",
			"lease": "policies:\n  - {name: api, limit: 20, window: 1m}\n  - with: api\n    name: b\n    lease: %s\n    window: 1m\n    limit: 20\n",
			"tier":  "policies:\n  - name: api\n    limit: 20\n    window: 1m\n    tiers:\n      gold: %s\n",
		} {
			if field == "lease" && strings.HasPrefix(row.refused, "limit 0") {
				continue // none
			}
			line := 1 + strings.Count(text[:strings.Index(text, "%s")], "\n")
			set, err := ParsePolicies("p.yaml", []byte(fmt.Sprintf(text, row.written)), knownPolicies())
			var got int64
			if err == nil {
				got = map[string]int64{"limit": set.byName["api"].Limit, "tier": set.byName["api"].tiers["gold"].Limit}[field]
				if b := set.byName["b"]; b != nil {
					got = b.Lease
				}
			}
			switch {
			case row.refused == "" && err == nil && got == 10:
			case row.written == "1000000000000000000000" && err != nil:
			case row.refused != "" && err != nil && strings.HasPrefix(err.Error(), fmt.Sprintf("p.yaml:%d: ", line)) &&
				(strings.Contains(err.Error(), row.refused) || strings.Contains(row.refused, "limit")):
			default:
				t.Errorf("%s: %q: %d, %v", field, row.written, got, err)
			}
			if err != nil && strings.Contains(err.Error(), "Go ") {
				t.Errorf("%s: %q: tells how it is made: %v", field, row.written, err)
			}
		}
	}
}

// Files as editors, copies and accidents make them: taken for what they say, or refused with
// the line.
func TestParsePoliciesReadsTextOnly(t *testing.T) {
	const api = "policies:\n  - name: api\n    limit: 5\n    window: 1m\n"
	for name, row := range map[string]struct{ text, refused string }{
		"a byte order mark":              {"\ufeff" + api, ""},
		"Windows line ends":              {strings.ReplaceAll(api, "\n", "\r\n"), ""},
		"both":                           {"\ufeff" + strings.ReplaceAll(api, "\n", "\r\n"), ""},
		"two byte order marks":           {"\ufeff\ufeff" + api, "p.yaml:1: a byte order mark"},
		"one within":                     {api + "\ufeff", "p.yaml:5: a byte order mark"},
		"UTF-16":                         {"\xff\xfep\x00o\x00", "p.yaml:1: must be UTF-8, not UTF-16"},
		"UTF-16, the other way":          {"\xfe\xff\x00p\x00o", "p.yaml:1: must be UTF-8, not UTF-16"},
		"Latin-1":                        {api + "# caf\xe9\n", "p.yaml:5: must be UTF-8"},
		"a NUL":                          {api + "\x00", "p.yaml:5: the control character U+0000"},
		"a NUL in a name":                {strings.Replace(api, "api", "a\x00pi", 1), "p.yaml:2: the control character U+0000"},
		"an escape":                      {strings.Replace(api, "5", "\x1b[1m5", 1), "p.yaml:3: the control character U+001B"},
		"tabs":                           {strings.ReplaceAll(api, "    ", "\t"), "p.yaml:3: "},
		"a key twice":                    {strings.Replace(api, "limit: 5", "limit: 5\n    limit: 6", 1), "p.yaml:4: "},
		"policies twice":                 {api + api, "p.yaml:5: "},
		"a name without quotes":          {strings.Replace(api, "api", "010", 1), "p.yaml:2: 010 is not allowed"},
		"a list of such":                 {api + "    allow: [010]\n", "p.yaml:5: 010 is not allowed"},
		"shadow: yes":                    {api + "    shadow: yes\n", "p.yaml:5: shadow must be true or false"},
		"shadow: 1":                      {api + "    shadow: 1\n", "p.yaml:5: shadow must be true or false"},
		"shadow in quotes":               {api + "    shadow: \"true\"\n", "p.yaml:5: shadow must be true or false"},
		"a tag":                          {"policies: !!python/object []\n", "p.yaml:1: tags"},
		"the audit's policy":             {api + "  - name: login-audit\n    with: api\n    limit: 5\n    window: 1m\n", "p.yaml:5: policy \"login-audit\" cannot be in a file"},
		"the audit's policy by itself":   {"policies:\n  - {name: login-audit, limit: 5, window: 1m}\n", "p.yaml:2: policy \"login-audit\" cannot be in a file"},
		"one that goes with the audit's": {"policies:\n  - {name: a, with: login-audit, limit: 5, window: 1m}\n", "p.yaml:2: policy \"a\" cannot go with"},
		"an alias to a text":             {"policies:\n  - name: &n api\n    limit: *n\n    window: 1m\n", "p.yaml:3: limit must be a whole number"},
		"an anchor in itself":            {"policies: &a [*a]\n", "p.yaml:1: "},
	} {
		set, err := ParsePolicies("p.yaml", []byte(row.text), knownPolicies())
		switch {
		case row.refused == "" && (err != nil || set.byName["api"].Limit != 5):
			t.Errorf("%s: %v", name, err)
		case row.refused != "" && (err == nil || !strings.HasPrefix(err.Error(), row.refused) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: %v, want %s", name, err, row.refused)
		}
	}
}

// No file, however it is made, costs more than a moment and some megabytes.
func TestParsePoliciesIsBounded(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		b.WriteString("policies:\n")
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	const policy = "  - {name: p%d, with: api, limit: 5, window: 1m}\n"
	laughs := "policies:\n  - {name: a, with: api, limit: 5, window: 1m, allow: &a0 [x, x]}\n"
	for i := 1; i < 40; i++ {
		laughs += fmt.Sprintf("  - {name: b%d, with: api, limit: 5, window: 1m, allow: &a%d [*a%d, *a%d]}\n", i, i, i-1, i-1)
	}
	indented := ""
	for i := range 700 {
		indented += strings.Repeat(" ", i) + "a:\n"
	}
	list := "policies:\n  - name: api\n    limit: 5\n    window: 1m\n    allow:\n"
	for name, row := range map[string]struct{ text, refused string }{
		"as many policies as may be": {many(64, policy), ""},
		"one more":                   {many(65, policy), "p.yaml:66: more than 64 policies"},
		"a long list":                {list + strings.Repeat("      - 10.0.0.0/8\n", 5000), ""},
		"a longer list":              {list + strings.Repeat("      - 10.0.0.0/8\n", 12_000), "p.yaml:"},
		"200 MB":                     {strings.Repeat("policies: []\n", 200<<20/13), "p.yaml:1: a policy file may have 256 KiB"},
		"200 MB of nothing":          {strings.Repeat("\n", 200<<20), "p.yaml:1: a policy file may have 256 KiB"},
		"aliases of aliases":         {laughs, "p.yaml:"},
		"indented":                   {indented, "p.yaml:"},
		"brackets":                   {strings.Repeat("[", MaxPolicyFile), "p.yaml:1: "},
		"fewer brackets":             {strings.Repeat("[", 10_000), "p.yaml:1: nested too deeply"},
		"braces":                     {strings.Repeat("{a: ", 5000), "p.yaml:1: nested too deeply"},
		"lists of lists":             {strings.Repeat("- ", 10_000), "p.yaml:1: nested too deeply"},
		"keys of keys":               {strings.Repeat("? ", 10_000), "p.yaml:1: nested too deeply"},
		"anchors":                    {strings.Repeat("&a ", 10_000), "p.yaml:1: nested too deeply"},
		"tags":                       {strings.Repeat("!a ", 10_000), "p.yaml:1: nested too deeply"},
		"commas":                     {"policies: [" + strings.Repeat("a,", MaxPolicyFile/2-10) + "]", "p.yaml:1: more than 20000"},
		"comments":                   {strings.Repeat("#\n", MaxPolicyFile/2), "p.yaml:20001: more than 20000"},
		"a long text":                {"policies: " + strings.Repeat("a", MaxPolicyFile-10), "p.yaml:1: "},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		started := time.Now()
		_, err := ParsePolicies("p.yaml", []byte(row.text), knownPolicies())
		took := time.Since(started)
		runtime.ReadMemStats(&after)
		if row.refused == "" && err != nil || row.refused != "" && (err == nil || !strings.HasPrefix(err.Error(), row.refused)) {
			t.Errorf("%s: %v, want %q", name, err, row.refused)
		}
		// What is written down here itself is copied once.
		if spent := (after.TotalAlloc - before.TotalAlloc - uint64(len(row.text))) >> 20; spent > 150 || took > 10*time.Second {
			t.Errorf("%s: %d MB, %v", name, spent, took)
		}
	}
}
