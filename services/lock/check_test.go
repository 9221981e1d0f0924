package lock

import (
	"errors"
	"testing"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// A holder's check is a plain read. Who is none, and by which grant, is the script's to say.
func TestCheckOfAHolder(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		l := New(rdb, Options{})
		held := take(t, l, request("r", alice))
		script := l.scripts.status
		l.scripts.status = rueidis.NewLuaScript(`return redis.error_reply('the script is not needed')`)
		wantHolder(t, l, held)
		if _, err := l.Metadata(t.Context(), held, "noted"); err != nil { // the key's text begins otherwise now
			t.Fatal(err)
		}
		wantHolder(t, l, held)
		l.scripts.status = script
		for name, claim := range map[string]Claim{
			"another grant":    {Resource: "r", Grant: random128(), Token: held.Token},
			"another token":    {Resource: "r", Grant: held.Grant, Token: "forged"},
			"another resource": {Resource: "s", Grant: held.Grant, Token: held.Token},
		} {
			var notHeld *models.NotHeldError
			if _, err := l.Check(t.Context(), claim); !errors.As(err, &notHeld) || notHeld.Status.Held != (claim.Resource == "r") {
				t.Errorf("%s: %v", name, err)
			}
		}
		giveBack(t, l, held)
		if _, err := l.Check(t.Context(), held.Claim); !errors.Is(err, models.ErrNotHeld) {
			t.Errorf("given back: %v", err)
		}
	})
}

func FuzzGrantsTo(f *testing.F) {
	claim := Claim{Resource: "r", Grant: random128(), Token: "secret"}
	grant := "0000000000000001" + "0000000000002" + claim.Grant + hashToken(claim.Token) + writeRecord("r", alice)
	for _, text := range []string{grant, "+" + grant, "*" + grant, "?" + grant, grant[:grantRest], grant[:grantRest-1], "", "+", "?"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := readRecord(text)
		if ok && grantsTo(text, claim) != (got.grant == claim.Grant && got.tokenHash == hashToken(claim.Token)) {
			t.Errorf("%q", text)
		}
	})
}
