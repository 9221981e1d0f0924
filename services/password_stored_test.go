package services

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// A stored hash that is not argon2id of this version, not written as we write it, or
// that asks for too much, is refused with an error that shows nothing of it. The work
// is that of an unknown user: no more memory, no more time, no panic.
func TestUnusableHashesAreRefused(t *testing.T) {
	p := cheapPasswords()
	good, err := p.Hash(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Split(good, "$")
	with := func(i int, field string) string {
		changed := append([]string{}, fields...)
		changed[i] = field
		return strings.Join(changed, "$")
	}
	salt, key := fields[4], fields[5]
	unusable := map[string]string{
		"plain text": "x", "bcrypt": "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy", "argon2i": with(1, "argon2i"),
		"older version": with(2, "v=16"), "newer version": with(2, "v=20"), "no version": with(2, ""), "version and more": with(2, "v=19,x"),
		"memory 4 TiB": with(3, "m=4294967295,t=2,p=1"), "memory 257 MiB": with(3, "m=263168,t=2,p=1"), "memory 0": with(3, "m=0,t=2,p=1"), "memory below lanes": with(3, "m=8,t=2,p=2"),
		"rounds 0": with(3, "m=19456,t=0,p=1"), "rounds": with(3, "m=19456,t=17,p=1"), "rounds without end": with(3, "m=19456,t=4294967295,p=1"),
		"lanes 0": with(3, "m=19456,t=2,p=0"), "lanes 255": with(3, "m=19456,t=2,p=255"), "lanes 256": with(3, "m=19456,t=2,p=256"), "negative": with(3, "m=-1,t=2,p=1"),
		"leading zero": with(3, "m=019456,t=2,p=1"), "more parameters": with(3, "m=19456,t=2,p=1,x=1"), "other order": with(3, "t=2,m=19456,p=1"),
		"no salt": with(4, ""), "short salt": with(4, "AAAA"), "long salt": with(4, strings.Repeat("A", 120)), "salt": with(4, "!"),
		"no key": with(5, ""), "short key": with(5, "AAAAAAAA"), "long key": with(5, strings.Repeat("A", 120)), "huge key": with(5, strings.Repeat("A", 1<<20)), "padded": good + "=",
		"space": " " + good, "line": good + "\n", "one more": good + "$", "before": "x" + good,
	}
	var work []string
	p.derive = func(password, salt []byte, passes, memory uint32, threads uint8, keyLen uint32) []byte {
		work = append(work, fmt.Sprint(len(salt), passes, memory, threads, keyLen))
		return deriveCheaply(password, salt, passes, memory, threads, keyLen)
	}
	want := fmt.Sprint(argonSalt, argonTime, argonMemory, argonThreads, argonKey)
	for name, hash := range unusable {
		work = nil
		right, err := p.Matches(t.Context(), "x", hash)
		if right || !errors.Is(err, errUnusableHash) || len(work) != 1 || work[0] != want {
			t.Errorf("%s: %t, %v, work %v", name, right, err, work)
		}
		if err != nil && (strings.Contains(err.Error(), salt) || strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 200) {
			t.Errorf("%s: says %q", name, err)
		}
		if _, ok := p.renew("x", hash); ok {
			t.Errorf("%s: is renewed", name)
		}
	}
	if right, err := p.Matches(t.Context(), "x", good); !right || err != nil {
		t.Errorf("a good one: %t, %v", right, err)
	}
}

// A hash is renewed if any of its parameters is not today's, and only where a slot is
// free.
func TestOutdatedHashesAreRenewed(t *testing.T) {
	p := cheapPasswords()
	for name, hash := range map[string]string{
		"memory": cheapHash("x", 8*1024, argonTime, argonThreads, argonSalt, argonKey), "rounds": cheapHash("x", argonMemory, 1, argonThreads, argonSalt, argonKey),
		"lanes": cheapHash("x", argonMemory, argonTime, 2, argonSalt, argonKey), "salt": cheapHash("x", argonMemory, argonTime, argonThreads, 8, argonKey),
		"key": cheapHash("x", argonMemory, argonTime, argonThreads, argonSalt, 16), "more of all": cheapHash("x", 2*argonMemory, argonTime+1, argonThreads+1, 32, 64),
	} {
		if right, err := p.Matches(t.Context(), "x", hash); !right || err != nil {
			t.Errorf("%s: %t, %v", name, right, err)
		}
		renewed, ok := p.renew("x", hash)
		if !ok || renewed == hash {
			t.Errorf("%s: not renewed", name)
			continue
		}
		if right, err := p.Matches(t.Context(), "x", renewed); !right || err != nil {
			t.Errorf("%s, renewed: %t, %v", name, right, err)
		}
		if _, ok := p.renew("x", renewed); ok {
			t.Errorf("%s: renewed again", name)
		}
		if err := p.slots.Acquire(t.Context(), passwordSlots()); err != nil {
			t.Fatal(err)
		}
		if _, ok := p.renew("x", hash); ok {
			t.Errorf("%s: renewed without a slot", name)
		}
		p.slots.Release(passwordSlots())
	}
}
