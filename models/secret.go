package models

import (
	"errors"
	"fmt"
)

// MinSecret is the fewest bytes of a secret that keys are derived from.
const MinSecret = 32

// ValidateSecrets says what is wrong with a list of secrets, nil if nothing is. It
// shows nothing of a secret but its length.
func ValidateSecrets(secrets []string) error {
	if len(secrets) == 0 {
		return errors.New("no secret")
	}
	for i, secret := range secrets {
		if len(secret) < MinSecret {
			return fmt.Errorf("secret %d of %d has %d bytes, must have at least %d", i+1, len(secrets), len(secret), MinSecret)
		}
	}
	return nil
}
