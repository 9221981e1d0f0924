package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/models/email"
)

// rule is what one variable must be, and whether it is.
type rule struct {
	name    string
	ok      bool
	allowed string // goes on after "must be"
}

// broken is the line that stops the start. value is what the variable is, or its
// default if it is unset.
func (r rule) broken(value string) error {
	if value == "" {
		return fmt.Errorf("%s is not set: must be %s", r.name, r.allowed)
	}
	return fmt.Errorf("%s=%.200q: must be %s", r.name, redact(r.name, value), r.allowed)
}

// rules holds every variable to what is allowed, in the order of Config. The
// first rule of a variable also says what a value of the wrong type must be.
// given has what was set, before any default.
func (c Config) rules(given map[string]string) []rule {
	const (
		yesNo   = "true or false"
		timeout = "a duration from 1ms to 1m, such as 500ms"
		window  = "whole seconds from 1s to 24h, such as 1m"
		limit   = "a whole number from 1 to 1000000"
	)
	needsRedis := c.Production() && c.EmbeddedRedis()
	return []rule{
		{"ADDR", listenable(c.Addr), "host:port, such as 127.0.0.1:8080 or :8080"},
		{"PUBLIC_URL", isOrigin(c.PublicURL), "an http or https URL without a path, such as https://gatehouse.example.com"},
		{"APP_ENV", oneOf(c.AppEnv, development, production), "development or production"},

		{"DATABASE_URL", isDatabase(c.DatabaseURL), "a file path for SQLite or postgres://user:password@host:port/name"},
		{"DATABASE_TIMEOUT", between(c.DatabaseTimeout, time.Millisecond, time.Minute), timeout},
		{"DATABASE_MAX_CONNS", between(c.DatabaseMaxConns, 0, 10_000), "a whole number from 0 to 10000; 0 is the default"},
		{"AUDIT_RETENTION", c.AuditRetention >= 24*time.Hour, "a duration of at least 24h, such as 9600h"},

		{"REDIS_ENABLED", true, yesNo},
		{"REDIS_URL", c.RedisURL == "" || isRedisURL(c.RedisURL),
			"redis://, rediss:// or unix://, such as redis://user:password@host:6379/0, with special characters in the password escaped"},
		{"REDIS_URL", !needsRedis, "set in production, or REDIS_HOST, or REDIS_ENABLED=false to run without Redis"},
		{"REDIS_HOST", isHost(c.RedisHost), "a host name or an IP address, without a port"},
		{"REDIS_PORT", between(c.RedisPort, 1, 65535), "a port from 1 to 65535"},
		{"REDIS_DB", c.RedisDB >= 0, "a database number, 0 or more"},
		notWithURL("REDIS_HOST", given),
		notWithURL("REDIS_PORT", given),
		notWithURL("REDIS_PASSWORD", given),
		notWithURL("REDIS_DB", given),
		{"REDIS_KEY_PREFIX", isKeyPrefix(c.RedisKeyPrefix), "1 to 64 visible ASCII characters other than { and }"},
		{"REDIS_TIMEOUT", between(c.RedisTimeout, time.Millisecond, time.Minute), timeout},
		{"LOCK_ON_REDIS_DOWN", oneOf(c.LockOnRedisDown, models.OnRedisDownOpen, models.OnRedisDownClosed), "open or closed"},
		{"LOCK_MAX_PER_USER", between(c.LockMaxPerUser, 1, 10_000), "a whole number from 1 to 10000"},
		{"LOCK_MAX_HOLD", between(c.LockMaxHold, time.Minute, 24*time.Hour), "a duration from 1m to 24h, such as 12h"},
		{"LOCK_PROTECTION", between(c.LockProtection, time.Second, 24*time.Hour), "a duration from 1s to 24h, such as 5m"},
		{"LOCK_ASK_TIMEOUT", between(c.LockAskTimeout, time.Second, time.Hour), "a duration from 1s to 1h, such as 2m"},

		{"RATE_LIMIT_MAX", between(c.RateLimitMax, 1, 1_000_000), limit},
		{"RATE_LIMIT_WINDOW", isWindow(c.RateLimitWindow), window},
		{"RATE_LIMIT_ALGORITHM", oneOf(c.RateLimitAlgorithm, models.AlgorithmAuto, models.AlgorithmSlidingLog, models.AlgorithmGCRA),
			"auto, sliding-log or gcra"},
		{"RATE_LIMIT_ALGORITHM", c.RateLimitAlgorithm != models.AlgorithmSlidingLog || c.RateLimitMax <= 1000,
			"auto or gcra when RATE_LIMIT_MAX is above 1000"},
		{"RATE_LIMIT_ON_REDIS_DOWN", oneOf(c.RateLimitOnRedisDown, models.OnRedisDownLocal, models.OnRedisDownOpen, models.OnRedisDownClosed),
			"local, open or closed"},
		{"RATE_LIMIT_LEASE", between(int64(c.RateLimitLease), models.BlockAuto, c.RateLimitMax), "auto, or a whole number from 0 to RATE_LIMIT_MAX"},
		{"LOGIN_RATE_LIMIT_MAX", between(c.LoginRateLimitMax, 1, 1_000_000), limit},
		{"LOGIN_RATE_LIMIT_WINDOW", isWindow(c.LoginRateLimitWindow), window},
		{"RATE_LIMIT_POLICIES", true, "the path of a YAML file"}, // read when the limiter is made

		{"SESSION_IDLE_TIMEOUT", c.SessionIdleTimeout > 0, "a duration above 0, such as 30m"},
		{"SESSION_ABSOLUTE_TIMEOUT", c.SessionAbsoluteTimeout > 0, "a duration above 0, such as 12h"},
		{"SESSION_IDLE_TIMEOUT", c.SessionIdleTimeout <= c.SessionAbsoluteTimeout,
			"at most SESSION_ABSOLUTE_TIMEOUT, which is " + c.SessionAbsoluteTimeout.String()},
		{"SESSION_MAX_PER_USER", between(c.SessionMaxPerUser, 1, 10_000), "a whole number from 1 to 10000"},
		{"STREAMS_PER_USER", between(c.StreamsPerUser, 1, 10_000), "a whole number from 1 to 10000"},

		{"SECRET_KEY", longEnough(c.SecretKeys), "a key of at least 32 bytes, or several with commas between them"},
		{"SECRET_KEY", !c.Production() || c.SecretKeys != nil, "set in production: a key of at least 32 bytes, or several with commas between them"},
		{"ADMIN_EMAIL", c.AdminEmail == "" || isEmail(c.AdminEmail), "an e-mail address, without invisible characters and words of mixed scripts"},
		{"ADMIN_EMAIL", c.AdminEmail != "" || c.AdminPassword == "", "set together with ADMIN_PASSWORD"},
		{"ADMIN_PASSWORD", c.AdminEmail == "" || c.AdminPassword != "", "set together with ADMIN_EMAIL"},
		{"ADMIN_PASSWORD", c.AdminPassword == "" || models.ValidatePassword("", c.AdminPassword) == nil, "12 to 128 characters"},
		{"DEMO", true, yesNo},
		{"TRUSTED_PROXIES", !slices.ContainsFunc(c.TrustedProxies, notNetwork),
			"IP addresses or CIDR ranges with commas between them, such as 10.0.0.0/8,192.0.2.1"},

		{"LOG_LEVEL", oneOf(c.LogLevel, slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError), "debug, info, warn or error"},
		{"LOG_FORMAT", oneOf(c.LogFormat, "text", "json"), "text or json"},

		{"SHUTDOWN_TIMEOUT", c.ShutdownTimeout > 0, "a duration above 0, such as 15s"},
		{"SHUTDOWN_DELAY", c.ShutdownDelay >= 0, "a duration of 0 or more, such as 5s"},
	}
}

func oneOf[T comparable](value T, allowed ...T) bool { return slices.Contains(allowed, value) }

func between[T int | int64 | time.Duration](value, low, high T) bool {
	return low <= value && value <= high
}

func isWindow(d time.Duration) bool {
	return between(d, time.Second, 24*time.Hour) && d%time.Second == 0
}

func notWithURL(name string, given map[string]string) rule {
	return rule{name, given[name] == "" || given["REDIS_URL"] == "", "unset when REDIS_URL is set"}
}

func listenable(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil && isHost(host)
}

// isHost takes the empty string, too: every address, or not set.
func isHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return !strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`:/?#@[]\`, r) })
}

func isOrigin(text string) bool {
	u, err := url.Parse(text)
	return err == nil && oneOf(u.Scheme, "http", "https") && u.Hostname() != "" && isHost(u.Hostname()) &&
		*u == url.URL{Scheme: u.Scheme, Host: u.Host} && (u.Port() == "" || listenable(u.Host))
}

// isDatabase takes a text without a scheme as a path, unless it is a list of connection settings:
// the password in it would become the name of a file.
func isDatabase(text string) bool {
	words := strings.Fields(strings.ReplaceAll(text, "=", " = "))
	for i, word := range words[min(1, len(words)):] {
		if word == "=" && oneOf(words[i], "host", "hostaddr", "port", "dbname", "user", "password", "sslmode", "service") {
			return false
		}
	}
	scheme, rest, found := strings.Cut(text, ":")
	drive := len(scheme) == 1 && strings.HasPrefix(rest, `\`)
	if found && scheme != "" && !drive && !strings.ContainsAny(scheme, `/\.`) {
		_, err := url.Parse(text)
		return err == nil && oneOf(scheme, "postgres", "postgresql") && strings.HasPrefix(rest, "//")
	}
	return !strings.ContainsFunc(text, unicode.IsControl)
}

// isRedisURL refuses a fragment, because it is a password with a "#" in it.
func isRedisURL(text string) bool {
	opt, err := rueidis.ParseURL(text)
	if err != nil || opt.SelectDB < 0 || strings.Contains(text, "#") {
		return false
	}
	if strings.HasPrefix(text, "unix:") {
		return opt.InitAddress[0] != ""
	}
	return !slices.ContainsFunc(opt.InitAddress, func(addr string) bool { return !listenable(addr) })
}

// isKeyPrefix refuses braces, because the hash tag that follows the prefix must
// be the first in the key.
func isKeyPrefix(text string) bool {
	return between(len(text), 1, 64) && !strings.ContainsFunc(text, func(r rune) bool {
		return r <= ' ' || r > '~' || r == '{' || r == '}'
	})
}

func longEnough(keys []string) bool {
	return keys == nil || models.ValidateSecrets(keys) == nil
}

func isEmail(text string) bool {
	_, err := email.Normalize(text)
	return err == nil
}

func notNetwork(text string) bool {
	_, _, err := net.ParseCIDR(text)
	return err != nil && net.ParseIP(text) == nil
}
