package models

import (
	"errors"
	"fmt"
)

// MinSecret is the fewest bytes of a secret that keys are derived from.
const MinSecret = 32

// ValidateSecrets returns an error for a list that is empty or has a secret of less than
// MinSecret bytes, nil if it is valid. It shows only the length of a secret.
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
