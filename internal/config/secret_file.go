package config

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// mostSecret bounds what is read of a file with a secret, in bytes.
const mostSecret = 64 << 10

// mayBeSecret reports whether a variable is a secret, or a URL that may have a password in it.
func mayBeSecret(name string) bool {
	switch name {
	case "DATABASE_URL", "REDIS_URL", "REDIS_PASSWORD", "SECRET_KEY", "ADMIN_PASSWORD":
		return true
	}
	return false
}

// readSecret is the value of a variable whose file was named, as orchestrators mount secrets. value
// is what the variable itself says, which must be nothing. Newlines at the end are not part of it.
func readSecret(name, value, path string) (string, error) {
	if value != "" {
		return "", fmt.Errorf("%s_FILE=%q: must be unset when %s is set", name, path, name)
	}
	file, err := os.Open(path)
	if err != nil {
		return "", unreadable(name, path)
	}
	defer file.Close()
	secret, err := io.ReadAll(io.LimitReader(file, mostSecret+1))
	text := strings.TrimRight(string(secret), "\r\n")
	if err != nil || text == "" || len(secret) > mostSecret {
		return "", unreadable(name, path)
	}
	return text, nil
}

func unreadable(name, path string) error {
	return fmt.Errorf("%s_FILE=%q: must be a readable file with the value of %s in it", name, path, name)
}
