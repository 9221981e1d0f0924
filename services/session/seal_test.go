package session

import (
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
)

func TestCopyThroughRedisIsTheSame(t *testing.T) {
	at := time.UnixMicro(1_800_000_000_123_456).UTC()
	known, made := models.Session{
		Hash: "h", ID: "id", User: models.UserRef{ID: "1", Email: "ann@example.com"}, Roles: []string{"viewer"}, Epoch: 3,
		Data: []byte{0, 255}, Version: 9, CreatedAt: at, UserAgent: "ü", IP: "::1",
	}, logOffset{7, 99}
	known.LastSeen, known.IdleAt, known.ExpiresAt = at.Add(time.Second), at.Add(time.Minute), at.Add(time.Hour)
	c := &Cache{sealer: newSealer(nil)}
	text, err := c.encode(known, made)
	if err != nil {
		t.Fatal(err)
	}
	if got, offset, err := c.decode("h", text); err != nil || offset != made || !reflect.DeepEqual(got, known) {
		t.Errorf("got %+v at %v, %v", got, offset, err)
	}
	for _, secret := range []string{"ann@example.com", "viewer", "::1"} {
		if strings.Contains(text, secret) {
			t.Errorf("the copy shows %q", secret)
		}
	}
	// It is good for that session and version only, and unchanged.
	_, sealed, _ := strings.Cut(text, " ")
	flipped := []byte(text)
	flipped[len(flipped)-1] ^= 1
	for name, try := range map[string][2]string{
		"another session": {"i", text}, "another version": {"h", "10 " + sealed}, "changed": {"h", string(flipped)},
		"cut": {"h", text[:20]}, "empty": {"h", ""}, "no version": {"h", "x " + sealed}, "plain": {"h", `9 {"id":"x"}`},
	} {
		if _, _, err := c.decode(try[0], try[1]); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

// Keys are changed in two steps: every instance learns the new one, then seals
// with it. At each step all instances read what any of them wrote.
func TestSealRotation(t *testing.T) {
	a, b := strings.Repeat("a", 32), strings.Repeat("b", 32)
	steps := [][]string{{a}, {a, b}, {b, a}, {b}}
	for i := range len(steps) - 1 {
		for _, pair := range [][2]int{{i, i + 1}, {i + 1, i}} {
			from, to := newSealer(steps[pair[0]]), newSealer(steps[pair[1]])
			text, err := to.open(from.seal([]byte("copy"), "h 1"), "h 1")
			readable := len(steps[pair[0]]) == 2 || len(steps[pair[1]]) == 2 || pair[0] == pair[1]
			if readable && (err != nil || string(text) != "copy") {
				t.Errorf("sealed by %v, opened by %v: %q, %v", steps[pair[0]], steps[pair[1]], text, err)
			}
		}
	}
	if _, err := newSealer([]string{b}).open(newSealer([]string{a}).seal([]byte("copy"), ""), ""); err == nil {
		t.Error("opened with another key")
	}
	if newSealer(nil).keys[0].name == nil || reflect.DeepEqual(newSealer(nil).keys[0].name, newSealer(nil).keys[0].name) {
		t.Error("without secrets the key is not random")
	}
}

// Tokens have 256 bits that nothing predicts, no two are alike, and their hash,
// which is what is stored, does not show them.
func TestTokensAreRandom(t *testing.T) {
	const n = 2_000
	seen := map[string]bool{}
	var ones [tokenBytes * 8]int
	for range n {
		token, hash := newToken()
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || len(raw) != 32 || seen[token] || len(token) != tokenLength || hash == token || !isToken(token) {
			t.Fatalf("token of %d bytes, seen before: %v, %v", len(raw), seen[token], err)
		}
		seen[token] = true
		for bit := range ones {
			ones[bit] += int(raw[bit/8] >> (bit % 8) & 1)
		}
	}
	for bit, count := range ones { // 9 standard deviations: it never happens by chance
		if count < n/2-9*23 || count > n/2+9*23 {
			t.Errorf("bit %d is set in %d of %d tokens", bit, count, n)
		}
	}
}
