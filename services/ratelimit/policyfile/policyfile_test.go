package policyfile_test

import (
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/ratelimit"
	"gatehouse/services/ratelimit/policyfile"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

const samplePolicies = `# the front door
policies:
  - name: api
    limit: 3
    window: 1m
    allow: [10.0.0.0/8, "user:1"]
    deny: [192.0.2.7]
  - name: api-burst
    with: api
    limit: 2
    window: 1s
    algorithm: sliding-log
    on_redis_down: closed
    lease: 1
    tiers:
      silver: 3
      gold: 4
`

func knownPolicies() map[string][]string {
	return map[string][]string{"api": {"bronze", "silver", "gold", "platinum"}, "login": nil}
}

// effective is the policy of a name as a limiter with the set decides by it.
func effective(t *testing.T, set *ratelimit.PolicySet, name, tier string) models.Policy {
	t.Helper()
	limiter := ratelimit.New(redistest.Start(t, redis.Options{Disabled: true}), ratelimit.Options{})
	limiter.Configure(set)
	own := models.Policy{Name: name, Limit: 77, Window: time.Minute}
	decisions, err := limiter.Peek(t.Context(), "group", models.Hit{Policy: own, Key: "k", Tier: tier})
	if err != nil {
		t.Fatal(err)
	}
	return decisions[0].Policy
}

func TestParseNamesTheLine(t *testing.T) {
	if _, err := policyfile.Parse("p.yaml", []byte(samplePolicies), knownPolicies()); err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`^p\.yaml:\d+: `)
	for _, row := range []struct{ name, old, new, want string }{
		{"no limit", "limit: 3", "limit: 0", "p.yaml:4: "},
		{"a large limit", "limit: 3", "limit: 9999999", "p.yaml:4: "},
		{"not a number", "limit: 3", "limit: three", "p.yaml:4: "},
		{"a window too short", "window: 1s", "window: 10ms", "p.yaml:11: "},
		{"not a duration", "window: 1s", "window: often", "p.yaml:11: "},
		{"an unknown algorithm", "sliding-log", "leaky", "p.yaml:12: "},
		{"an unknown failure policy", "closed", "panic", "p.yaml:13: "},
		{"a lease above the limit", "lease: 1", "lease: 7", "p.yaml:14: "},
		{"an unknown field", "lease: 1", "leash: 1", "p.yaml:14: "},
		{"a bad network", "10.0.0.0/8", "10.0.0.0/99", "p.yaml:6: "},
		{"a bad address", "192.0.2.7", "192.0.2/7", "p.yaml:7: "},
		{"an unknown policy", "name: api\n", "name: ape\n", "p.yaml:3: "},
		{"an unknown companion", "with: api", "with: ape", "p.yaml:9: "},
		{"twice", "name: api-burst\n    with: api", "name: api", "p.yaml:8: "},
		{"a companion that is known", "name: api-burst", "name: login", "p.yaml:9: "},
		{"a tier nobody has", "gold: 4", "lead: 4", "p.yaml:17: "},
		{"a tier's limit", "silver: 3", "silver: 0", "p.yaml:16: "},
		{"a tier's limit that the log cannot count", "gold: 4", "gold: 1001", "p.yaml:17: "},
		{"a tier's limit that is no number", "gold: 4", "gold: {limit: 4}", "p.yaml:17: "},
		{"a tier twice", "gold: 4", "silver: 4", "p.yaml:17: "},
		{"tiers where nobody has one", "  - name: api-burst\n    with: api", "  - name: login\n    shadow: false", "p.yaml:17: "},
		{"no limit given", "    limit: 3\n", "", "p.yaml:3: "},
		{"not YAML", "policies:", "policies: [", "p.yaml:"}, // where it ends is a matter of taste
		{"an unknown alias", "limit: 3", "limit: *three", "p.yaml:4: "},
		{"an unknown alias to merge", "lease: 1", "<<: *lease", "p.yaml:14: "},
		{"half a unit", "limit: 3", "limit: 3.7", "p.yaml:4: "},
		{"half a unit of a tier", "gold: 4", "gold: 4.5", "p.yaml:17: "},
		{"half a unit of a lease", "lease: 1", "lease: 1.5", "p.yaml:14: "},
		{"no end of units", "limit: 3", "limit: .inf", "p.yaml:4: "},
		{"a second document", "  - name: api-burst", "---\npolicies:\n  - name: api-burst", "p.yaml:9: "},
	} {
		_, err := policyfile.Parse("p.yaml", []byte(strings.Replace(samplePolicies, row.old, row.new, 1)), knownPolicies())
		if err == nil || !strings.HasPrefix(err.Error(), row.want) || !line.MatchString(err.Error()) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s...", row.name, err, row.want)
		}
	}
	if set, err := policyfile.Parse("p.yaml", []byte("policies: [{name: api, limit: &all 3, window: 1m, lease: *all}]"), knownPolicies()); err != nil || effective(t, set, "api", "").Block != 3 {
		t.Errorf("an alias: %+v, %v", set, err)
	}
	for half, at := range map[string]int{"": 1, "policies:\n": 1, "# nothing\n": 1, "---\n# nothing\n---\n": 1, "# these\n# are\npolicies:\n": 3} { // as while it is written
		if _, err := policyfile.Parse("p.yaml", []byte(half), knownPolicies()); err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("p.yaml:%d: policies: ", at)) {
			t.Errorf("%q: %v", half, err)
		}
	}
	for _, empty := range []string{"---\npolicies: []\n", "policies: []\n...\n"} {
		if set, err := policyfile.Parse("p.yaml", []byte(empty), knownPolicies()); err != nil || effective(t, set, "api", "").Limit != 77 {
			t.Errorf("%q: %v, %v", empty, set, err)
		}
	}
}

// A number is written in one way only, and means what everybody reads.
func TestParseTakesPlainNumbersOnly(t *testing.T) {
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
			set, err := policyfile.Parse("p.yaml", []byte(fmt.Sprintf(text, row.written)), knownPolicies())
			var got int64
			if err == nil {
				got = map[string]int64{"limit": effective(t, set, "api", "").Limit, "tier": effective(t, set, "api", "gold").Limit}[field]
				if field == "lease" {
					got = effective(t, set, "b", "").Block
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

// A lease is a number or auto, which is what it is where it is left out.
func TestParseLease(t *testing.T) {
	const text = "policies:\n  - name: api\n    limit: 20\n    window: 1m\n"
	for written, want := range map[string]int64{
		"": models.BlockAuto, "    lease: auto\n": models.BlockAuto, "    lease: ~\n": models.BlockAuto, "    lease: &a auto\n": models.BlockAuto,
		"    lease: 0\n": 0, "    lease: 20\n": 20,
	} {
		set, err := policyfile.Parse("p.yaml", []byte(text+written), knownPolicies())
		if err != nil || effective(t, set, "api", "").Block != want {
			t.Errorf("%q: %v, want %d", written, err, want)
		}
	}
	for _, written := range []string{"-1", "Auto", "automatic", `"auto"`, "[]", "{}", "21", "9999999999999999999"} {
		_, err := policyfile.Parse("p.yaml", []byte(text+"    lease: "+written+"\n"), knownPolicies())
		if err == nil || !strings.HasPrefix(err.Error(), "p.yaml:5: ") && !strings.HasPrefix(err.Error(), "p.yaml:1: lease must be auto") {
			t.Errorf("%s: %v", written, err)
		}
	}
}

// Files as editors, copies and accidents make them: taken for what they say, or refused with
// the line.
func TestParseReadsTextOnly(t *testing.T) {
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
		set, err := policyfile.Parse("p.yaml", []byte(row.text), knownPolicies())
		switch {
		case row.refused == "" && (err != nil || effective(t, set, "api", "").Limit != 5):
			t.Errorf("%s: %v", name, err)
		case row.refused != "" && (err == nil || !strings.HasPrefix(err.Error(), row.refused) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: %v, want %s", name, err, row.refused)
		}
	}
}

// No file, however it is made, costs more than a moment and some megabytes.
func TestParseIsBounded(t *testing.T) {
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
		"20 MB":                      {strings.Repeat("policies: []\n", 20<<20/13), "p.yaml:1: a policy file may have 256 KiB"},
		"20 MB of nothing":           {strings.Repeat("\n", 20<<20), "p.yaml:1: a policy file may have 256 KiB"},
		"aliases of aliases":         {laughs, "p.yaml:"},
		"indented":                   {indented, "p.yaml:"},
		"brackets":                   {strings.Repeat("[", policyfile.MaxSize), "p.yaml:1: "},
		"fewer brackets":             {strings.Repeat("[", 10_000), "p.yaml:1: nested too deeply"},
		"braces":                     {strings.Repeat("{a: ", 5000), "p.yaml:1: nested too deeply"},
		"lists of lists":             {strings.Repeat("- ", 10_000), "p.yaml:1: nested too deeply"},
		"keys of keys":               {strings.Repeat("? ", 10_000), "p.yaml:1: nested too deeply"},
		"anchors":                    {strings.Repeat("&a ", 10_000), "p.yaml:1: nested too deeply"},
		"tags":                       {strings.Repeat("!a ", 10_000), "p.yaml:1: nested too deeply"},
		"commas":                     {"policies: [" + strings.Repeat("a,", policyfile.MaxSize/2-10) + "]", "p.yaml:1: more than 20000"},
		"comments":                   {strings.Repeat("#\n", policyfile.MaxSize/2), "p.yaml:20001: more than 20000"},
		"a long text":                {"policies: " + strings.Repeat("a", policyfile.MaxSize-10), "p.yaml:1: "},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		started := time.Now()
		_, err := policyfile.Parse("p.yaml", []byte(row.text), knownPolicies())
		took := time.Since(started) - servicestest.Slack(started)
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
