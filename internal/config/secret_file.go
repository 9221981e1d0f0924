package config

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// maxSecret bounds what is read of a file with a secret, in bytes.
const maxSecret = 64 << 10

// mayBeSecret reports whether a variable is a secret, or a URL that may have a password in it.
func mayBeSecret(name string) bool {
	switch name {
	case "DATABASE_URL", "REDIS_URL", "REDIS_PASSWORD", "SECRET_KEY", "ADMIN_PASSWORD":
		return true
	}
	return false
}

// readSecret is the value of a variable, or what is in the file that NAME_FILE names: orchestrators
// mount secrets so. Newlines at its end are not part of it.
func readSecret(name string, source func(string) string) (string, error) {
	value, path := source(name), source(name+"_FILE")
	if path == "" {
		return value, nil
	}
	if value != "" {
		return "", fmt.Errorf("%s_FILE=%q: must be unset when %s is set", name, path, name)
	}
	file, err := os.Open(path)
	if err != nil {
		return "", unreadable(name, path)
	}
	defer file.Close()
	secret, err := io.ReadAll(io.LimitReader(file, maxSecret+1))
	text := strings.TrimRight(string(secret), "\r\n")
	if err != nil || text == "" || len(secret) > maxSecret {
		return "", unreadable(name, path)
	}
	return text, nil
}

func unreadable(name, path string) error {
	return fmt.Errorf("%s_FILE=%q: must be a readable file with the value of %s in it", name, path, name)
}
