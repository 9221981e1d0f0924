package servicestest

import (
	"encoding/base64"
	"fmt"

	"golang.org/x/crypto/argon2"
)

// QuickHash is a hash of a password as gatehouse keeps it, with the lowest cost: it is checked
// quickly, until its user signs in.
func QuickHash(password string) string {
	salt := make([]byte, 16)
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=8,t=1,p=1$%s$%s", argon2.Version, encode(salt), encode(argon2.IDKey([]byte(password), salt, 1, 8, 1, 32)))
}
