package lock

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/securecookie"

	"gatehouse/models"
)

// A token is the signed JSON of its grant, as securecookie itself makes it: instances of two
// versions open each other's.
func TestTokenIsSignedJSON(t *testing.T) {
	secret := strings.Repeat("s", 32)
	signer, err := NewTokenSigner([]string{secret})
	if err != nil {
		t.Fatal(err)
	}
	key, err := deriveKey(secret, "gatehouse lock token")
	if err != nil {
		t.Fatal(err)
	}
	other := securecookie.New(key, nil).SetSerializer(securecookie.JSONEncoder{}).MaxAge(0)
	fence := int64(3)
	grant := models.LockGrant{
		LockClaim: models.LockClaim{Resource: "processes/1", Grant: "g", Token: "<t>"}, UserID: "7", Fence: &fence, Version: 5,
		End: time.UnixMicro(1_800_000_000_000_001).UTC(),
	}
	theirs, err := other.Encode("lock", grant)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := signer.open(theirs); !ok || !reflect.DeepEqual(got, grant) {
		t.Errorf("opened: %v, %+v", ok, got)
	}
	ours, err := signer.sign(grant)
	if err != nil {
		t.Fatal(err)
	}
	var got models.LockGrant
	if err := other.Decode("lock", ours, &got); err != nil || !reflect.DeepEqual(got, grant) {
		t.Errorf("opened elsewhere: %v, %+v", err, got)
	}
	broken, err := securecookie.EncodeMulti("lock", []byte(`{"Resource":"processes/1"`), signer.signed...)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := signer.open(broken); ok {
		t.Error("what is signed and no grant was opened")
	}
}
