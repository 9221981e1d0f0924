// Package config reads the configuration from the environment and a file .env (config.go), holds
// it to the rules (rules.go), and prints it without secrets (print.go).
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/joho/godotenv"
	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/models/email"
)

// What APP_ENV can be.
const (
	development = "development"
	production  = "production"
)

// Config is what the environment says, checked. Its secrets are hidden when it
// is printed or logged. Load makes it; nothing changes it afterwards.
type Config struct {
	Addr      string `env:"ADDR" envDefault:"127.0.0.1:8080"` // host:port to listen on; port 0 is any free one
	PublicURL string `env:"PUBLIC_URL"`                       // where browsers find it; no path, no final slash
	AppEnv    string `env:"APP_ENV" envDefault:"development"` // development or production

	DatabaseURL      string        `env:"DATABASE_URL" envDefault:"gatehouse.db"` // a SQLite path, or postgres://...
	DatabaseTimeout  time.Duration `env:"DATABASE_TIMEOUT" envDefault:"1s"`       // bounds all calls of one request together
	DatabaseMaxConns int           `env:"DATABASE_MAX_CONNS" envDefault:"0"`      // 0 lets the store choose
	AuditRetention   time.Duration `env:"AUDIT_RETENTION" envDefault:"9600h"`     // entries of the audit older than this are deleted

	RedisEnabled    bool               `env:"REDIS_ENABLED" envDefault:"true"` // false runs without Redis on purpose
	RedisURL        string             `env:"REDIS_URL"`                       // see RedisClient
	RedisHost       string             `env:"REDIS_HOST"`
	RedisPort       int                `env:"REDIS_PORT" envDefault:"6379"`
	RedisPassword   string             `env:"REDIS_PASSWORD"`
	RedisDB         int                `env:"REDIS_DB" envDefault:"0"`
	RedisKeyPrefix  string             `env:"REDIS_KEY_PREFIX" envDefault:"gatehouse:"` // starts every key and channel
	RedisTimeout    time.Duration      `env:"REDIS_TIMEOUT" envDefault:"100ms"`         // all Redis calls of one request
	LockOnRedisDown models.OnRedisDown `env:"LOCK_ON_REDIS_DOWN" envDefault:"open"`     // open or closed
	LockMaxPerUser  int                `env:"LOCK_MAX_PER_USER" envDefault:"20"`        // processes that one user can lock at a time
	LockMaxHold     time.Duration      `env:"LOCK_MAX_HOLD" envDefault:"12h"`           // how long a lock lasts at most, however often it is extended
	LockProtection  time.Duration      `env:"LOCK_PROTECTION" envDefault:"5m"`          // after the holder's last sign of life
	LockAskTimeout  time.Duration      `env:"LOCK_ASK_TIMEOUT" envDefault:"2m"`         // for the holder to answer who asks for the lock

	RateLimitMax         int64              `env:"RATE_LIMIT_MAX" envDefault:"300"`             // requests in any RateLimitWindow
	RateLimitWindow      time.Duration      `env:"RATE_LIMIT_WINDOW" envDefault:"1m"`           // whole seconds
	RateLimitAlgorithm   models.Algorithm   `env:"RATE_LIMIT_ALGORITHM" envDefault:"auto"`      // auto becomes models.AlgorithmAuto
	RateLimitOnRedisDown models.OnRedisDown `env:"RATE_LIMIT_ON_REDIS_DOWN" envDefault:"local"` // local, open or closed
	RateLimitLease       Lease              `env:"RATE_LIMIT_LEASE" envDefault:"auto"`          // most requests taken from Redis in one block; 0 asks for each, auto becomes models.BlockAuto
	LoginRateLimitMax    int64              `env:"LOGIN_RATE_LIMIT_MAX" envDefault:"10"`        // sign-ins in any LoginRateLimitWindow
	LoginRateLimitWindow time.Duration      `env:"LOGIN_RATE_LIMIT_WINDOW" envDefault:"1m"`     // whole seconds
	RateLimitPolicies    string             `env:"RATE_LIMIT_POLICIES"`                         // a YAML file; "" for none

	SessionIdleTimeout     time.Duration `env:"SESSION_IDLE_TIMEOUT" envDefault:"30m"`
	SessionAbsoluteTimeout time.Duration `env:"SESSION_ABSOLUTE_TIMEOUT" envDefault:"12h"`
	SessionMaxPerUser      int           `env:"SESSION_MAX_PER_USER" envDefault:"20"` // beyond it the oldest ends

	StreamsPerUser int `env:"STREAMS_PER_USER" envDefault:"20"` // event streams at one instance

	SecretKeys     []string `env:"SECRET_KEY"`      // the first signs, all verify; nil: made and kept in the database
	AdminEmail     string   `env:"ADMIN_EMAIL"`     // as email.Normalize returns it
	AdminPassword  string   `env:"ADMIN_PASSWORD"`  // set if and only if AdminEmail is
	Demo           bool     `env:"DEMO"`            // demo users and processes in an empty database
	TrustedProxies []string `env:"TRUSTED_PROXIES"` // IP addresses and CIDR ranges; nil trusts none

	LogLevel  slog.Level `env:"LOG_LEVEL" envDefault:"info"`
	LogFormat string     `env:"LOG_FORMAT"` // text or json

	ShutdownTimeout time.Duration `env:"SHUTDOWN_TIMEOUT" envDefault:"15s"` // what is not done by then is cut off
	ShutdownDelay   time.Duration `env:"SHUTDOWN_DELAY" envDefault:"0s"`    // between not ready and draining
}

// Lease is a models.Policy.Block as a variable gives it.
type Lease int64

// UnmarshalText takes a number, or auto for models.BlockAuto.
func (l *Lease) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*l = models.BlockAuto
		return nil
	}
	n, err := strconv.ParseUint(string(text), 10, 32)
	if err != nil {
		return fmt.Errorf("not a number: %w", err)
	}
	*l = Lease(n)
	return nil
}

// String is what UnmarshalText reads.
func (l Lease) String() string {
	if l == models.BlockAuto {
		return "auto"
	}
	return strconv.FormatInt(int64(l), 10)
}

// Load reads the variables of Config from getenv and, those unset there,
// from the file named dotenv if it exists. An empty value counts as unset; other
// variables are not looked at, except NAME_FILE, which names the file with the secret
// NAME. An error is one line that names the variable, its
// value (hidden if it is a secret) and what is allowed.
func Load(getenv func(string) string, dotenv string) (Config, error) {
	file, err := godotenv.Read(dotenv)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		// The parser's own words quote the file, and so perhaps a secret.
		return Config{}, fmt.Errorf("%s: cannot be read; it must be a file of NAME=value lines", dotenv)
	}
	given := map[string]string{}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		name := field.Tag.Get("env")
		given[name] = cmp.Or(getenv(name), file[name])
		if !mayBeSecret(name) {
			continue
		}
		source := getenv
		if getenv(name) == "" && getenv(name+"_FILE") == "" {
			source = func(name string) string { return file[name] }
		}
		if given[name], err = readSecret(name, source); err != nil {
			return Config{}, err
		}
	}
	var c Config
	effective := map[string]string{}
	err = env.ParseWithOptions(&c, env.Options{
		Environment: given,
		OnSet:       func(name string, value any, _ bool) { effective[name] = fmt.Sprint(value) },
	})
	if err != nil {
		return Config{}, c.wrongType(err, effective)
	}
	c.complete(given)
	for _, r := range c.rules(given) {
		if !r.ok {
			return Config{}, r.broken(effective[r.name])
		}
	}
	return c, nil
}

// wrongType says what is allowed of the first variable that err is about.
func (c Config) wrongType(err error, effective map[string]string) error {
	var parse env.ParseError
	if !errors.As(err, &parse) {
		return err
	}
	field, _ := reflect.TypeFor[Config]().FieldByName(parse.Name)
	rules := c.rules(nil)
	name := field.Tag.Get("env")
	i := slices.IndexFunc(rules, func(r rule) bool { return r.name == name })
	return rules[i].broken(effective[name])
}

// complete fills in the defaults that depend on other variables.
func (c *Config) complete(given map[string]string) {
	if c.PublicURL == "" {
		host, port, _ := net.SplitHostPort(c.Addr)
		if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
			host = "localhost"
		}
		c.PublicURL = "http://" + net.JoinHostPort(host, port)
	}
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
	if given["DEMO"] == "" {
		c.Demo = !c.Production()
	}
	if c.LogFormat == "" {
		c.LogFormat = "text"
		if c.Production() {
			c.LogFormat = "json"
		}
	}
	if c.RedisURL == "" && given["REDIS_PORT"]+given["REDIS_PASSWORD"]+given["REDIS_DB"] != "" {
		c.RedisHost = cmp.Or(c.RedisHost, "127.0.0.1")
	}
	if given["SESSION_IDLE_TIMEOUT"] == "" && c.SessionAbsoluteTimeout > 0 {
		c.SessionIdleTimeout = min(c.SessionIdleTimeout, c.SessionAbsoluteTimeout)
	}
	if c.RateLimitAlgorithm == "auto" {
		c.RateLimitAlgorithm = models.AlgorithmAuto
	}
	if address, err := email.Normalize(c.AdminEmail); err == nil {
		c.AdminEmail = address
	}
	for _, list := range [][]string{c.SecretKeys, c.TrustedProxies} {
		for i := range list {
			list[i] = strings.TrimSpace(list[i])
		}
	}
}

// Production reports whether APP_ENV is production.
func (c Config) Production() bool { return c.AppEnv == production }

// Secure reports whether browsers reach gatehouse over https.
func (c Config) Secure() bool { return strings.HasPrefix(c.PublicURL, "https://") }

// EmbeddedRedis reports whether Redis runs inside this process.
func (c Config) EmbeddedRedis() bool {
	return c.RedisEnabled && c.RedisURL == "" && c.RedisHost == ""
}

// RedisClient says where Redis is. It makes sense only if RedisEnabled is true
// and EmbeddedRedis false; in a Config that Load returned the error is nil.
func (c Config) RedisClient() (rueidis.ClientOption, error) {
	if c.RedisURL != "" {
		return rueidis.ParseURL(c.RedisURL)
	}
	return rueidis.ClientOption{
		InitAddress: []string{net.JoinHostPort(c.RedisHost, strconv.Itoa(c.RedisPort))},
		Password:    c.RedisPassword,
		SelectDB:    c.RedisDB,
	}, nil
}
