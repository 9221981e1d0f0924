package config

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/joho/godotenv"

	"gatehouse/models"
)

// vars is an environment: vars{"ADDR": ":80"}.
type vars map[string]string

func (v vars) getenv(name string) string { return v[name] }

// and returns the environment with one more variable.
func (v vars) and(name, value string) vars {
	more := vars{name: value}
	for n, val := range v {
		if n != name {
			more[n] = val
		}
	}
	return more
}

func load(t *testing.T, v vars) Config {
	t.Helper()
	c, err := Load(v.getenv, "")
	if err != nil {
		t.Fatalf("Load(%v): %v", v, err)
	}
	return c
}

func variables() []string {
	var names []string
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		names = append(names, field.Tag.Get("env"))
	}
	return names
}

var key = strings.Repeat("k", 32)

func TestConfigDefaults(t *testing.T) {
	want := Config{
		Addr: "127.0.0.1:8080", PublicURL: "http://127.0.0.1:8080", AppEnv: "development",
		DatabaseURL: "gatehouse.db", DatabaseTimeout: time.Second, AuditRetention: 9600 * time.Hour,
		RedisEnabled: true, RedisPort: 6379, RedisKeyPrefix: "gatehouse:", RedisTimeout: 100 * time.Millisecond,
		LockOnRedisDown: models.OnRedisDownOpen, LockMaxPerUser: 20,
		RateLimitMax: 300, RateLimitWindow: time.Minute, RateLimitAlgorithm: models.AlgorithmAuto, RateLimitOnRedisDown: models.OnRedisDownLocal,
		LoginRateLimitMax: 10, LoginRateLimitWindow: time.Minute,
		SessionIdleTimeout: 30 * time.Minute, SessionAbsoluteTimeout: 12 * time.Hour, SessionMaxPerUser: 20,
		StreamsPerUser: 20,
		Demo:           true, LogFormat: "text", ShutdownTimeout: 15 * time.Second,
	}
	if got := load(t, nil); !reflect.DeepEqual(got, want) {
		t.Errorf("without variables\n got %v\nwant %v", got, want)
	}
	empty := vars{}
	for _, name := range variables() {
		empty[name] = ""
	}
	if got := load(t, empty); !reflect.DeepEqual(got, want) {
		t.Errorf("empty variables do not count as unset:\n got %v\nwant %v", got, want)
	}
}

func TestConfigInProduction(t *testing.T) {
	base := vars{"APP_ENV": "production", "SECRET_KEY": key, "REDIS_URL": "redis://localhost", "PUBLIC_URL": "https://gate.example/"}
	c := load(t, base)
	if c.Demo || c.LogFormat != "json" || !c.Secure() || c.PublicURL != "https://gate.example" || c.EmbeddedRedis() {
		t.Errorf("production: %v", c)
	}
	if c := load(t, base.and("DEMO", "true").and("LOG_FORMAT", "text")); !c.Demo || c.LogFormat != "text" {
		t.Errorf("what is set wins over what production implies: %v", c)
	}
	for missing, v := range map[string]vars{
		"SECRET_KEY": base.and("SECRET_KEY", ""),
		"REDIS_URL":  base.and("REDIS_URL", ""),
	} {
		_, err := Load(v.getenv, "")
		if err == nil || !strings.HasPrefix(err.Error(), missing+" is not set: must be set in production") {
			t.Errorf("production without %s: %v", missing, err)
		}
	}
	load(t, base.and("REDIS_URL", "").and("REDIS_HOST", "redis"))
	load(t, base.and("REDIS_URL", "").and("REDIS_ENABLED", "false"))
}

// TestConfigValues has a row for every variable.
func TestConfigValues(t *testing.T) {
	type row struct {
		name      string
		with      vars // what else is set
		good, bad []string
	}
	rows := []row{
		{name: "ADDR", good: []string{":8080", "127.0.0.1:0", "[::1]:80", "localhost:80", "0.0.0.0:65535"},
			bad: []string{"8080", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:65536", "::1:80", "a b:80", "redis://u:hunter2@h:1"}},
		{name: "PUBLIC_URL", good: []string{"http://x", "https://gate.example:8443", "https://gate.example/", "http://[::1]:80"},
			bad: []string{"gate.example", "ftp://x", "https://", "https://x/path", "https://x?q", "https://x/#f", "https://u:hunter2@x", "http://:80", "http://a b"}},
		{name: "APP_ENV", good: []string{"development"}, bad: []string{"prod", "Production", "test"}},
		{name: "DATABASE_URL", good: []string{"x.db", "/var/lib/gate house.db", `C:\gate.db`, ":memory:", "postgres://u:p@h/db", "postgresql://h1,h2:5432/db?sslmode=disable", "postgres:///db?host=/run"},
			bad: []string{"mysql://u:hunter2@h/db", "sqlite:x.db", "postgres:u:hunter2@h", "postgres://u:hunter2@h:port/db", "x\n.db", "u:hunter2@h/db"}},
		{name: "DATABASE_TIMEOUT", good: []string{"1ms", "1m"}, bad: []string{"0", "-1s", "5", "1h", "soon"}},
		{name: "DATABASE_MAX_CONNS", good: []string{"0", "1", "10000"}, bad: []string{"-1", "10001", "1.5", "many", "99999999999999999999"}},
		{name: "AUDIT_RETENTION", good: []string{"24h", "9600h", "100000h"}, bad: []string{"0", "23h59m", "-1h", "400", "400d"}},
		{name: "REDIS_ENABLED", good: []string{"true", "false", "1", "0"}, bad: []string{"yes", "on", "2"}},
		{name: "REDIS_URL", good: []string{"redis://h", "rediss://user:p%23@h:6380/1", "redis://h?addr=h2:6379&addr=h3", "redis://h:26379?master_set=m", "unix:///run/redis.sock", "redis://[::1]:6379"},
			bad: []string{"h:6379", "http://h", "redis://u:hunter2@h:6379/x", "redis://:hunter2@h:99999", "redis://:hunter2#x@h", "redis://:hunter2", "redis://:hunter2/x@h", "redis://:12#hunter2@h", "redis://:hunter2@h/-1", "unix://", "redis://:hunter2@h?db=x"}},
		{name: "REDIS_HOST", good: []string{"redis", "10.0.0.1", "::1"}, bad: []string{"redis:6379", "redis://:hunter2@h", "a b", "h/0"}},
		{name: "REDIS_PORT", good: []string{"1", "65535"}, bad: []string{"0", "65536", "-1", "redis"}},
		{name: "REDIS_PASSWORD", with: vars{"REDIS_HOST": "h"}, good: []string{"hunter2", " ,#{}"}},
		{name: "REDIS_PASSWORD", with: vars{"REDIS_URL": "redis://h"}, bad: []string{"hunter2"}},
		{name: "REDIS_DB", good: []string{"0", "15"}, bad: []string{"-1", "one"}},
		{name: "REDIS_HOST", with: vars{"REDIS_URL": "redis://h"}, bad: []string{"h"}},
		{name: "REDIS_PORT", with: vars{"REDIS_URL": "redis://h"}, bad: []string{"6379"}},
		{name: "REDIS_DB", with: vars{"REDIS_URL": "redis://h"}, bad: []string{"0"}},
		{name: "REDIS_KEY_PREFIX", good: []string{"g:", "a/b.c|d", strings.Repeat("p", 64)}, bad: []string{"{g}:", "g}", "a b", "g\t", "é:", strings.Repeat("p", 65)}},
		{name: "REDIS_TIMEOUT", good: []string{"1ms", "250ms", "1m"}, bad: []string{"0s", "100", "-1ms", "2m"}},
		{name: "LOCK_ON_REDIS_DOWN", good: []string{"open", "closed"}, bad: []string{"local", "OPEN"}},
		{name: "LOCK_MAX_PER_USER", good: []string{"1", "10000"}, bad: []string{"0", "10001", "x"}},
		{name: "RATE_LIMIT_MAX", good: []string{"1", "1000000"}, bad: []string{"0", "-1", "1000001", "1e3"}},
		{name: "RATE_LIMIT_WINDOW", good: []string{"1s", "90s", "24h"}, bad: []string{"0s", "999ms", "1500ms", "24h1s", "60"}},
		{name: "RATE_LIMIT_ALGORITHM", good: []string{"auto", "sliding-log", "gcra"}, bad: []string{"fixed-window", "sliding_log"}},
		{name: "RATE_LIMIT_ALGORITHM", with: vars{"RATE_LIMIT_MAX": "1000"}, good: []string{"sliding-log"}},
		{name: "RATE_LIMIT_ALGORITHM", with: vars{"RATE_LIMIT_MAX": "1001"}, good: []string{"auto", "gcra"}, bad: []string{"sliding-log"}},
		{name: "RATE_LIMIT_ON_REDIS_DOWN", good: []string{"local", "open", "closed"}, bad: []string{"remote"}},
		{name: "RATE_LIMIT_LEASE", good: []string{"0", "1", "300"}, bad: []string{"-1", "301", "1s"}},
		{name: "RATE_LIMIT_LEASE", with: vars{"RATE_LIMIT_MAX": "10"}, good: []string{"10"}, bad: []string{"11"}},
		{name: "RATE_LIMIT_POLICIES", good: []string{"policies.yaml", "/etc/gate house.yaml"}},
		{name: "LOGIN_RATE_LIMIT_MAX", good: []string{"1", "1000000"}, bad: []string{"0", "1000001", "ten"}},
		{name: "LOGIN_RATE_LIMIT_WINDOW", good: []string{"1s", "24h"}, bad: []string{"0s", "25h", "1.5s"}},
		{name: "SESSION_IDLE_TIMEOUT", good: []string{"1s", "12h"}, bad: []string{"0s", "-1m", "30", "12h1ns", "13h"}},
		{name: "SESSION_IDLE_TIMEOUT", with: vars{"SESSION_ABSOLUTE_TIMEOUT": "10m"}, good: []string{"10m"}, bad: []string{"11m", "30m"}},
		{name: "SESSION_ABSOLUTE_TIMEOUT", good: []string{"30m", "720h"}, bad: []string{"0s", "-1h", "12"}},
		{name: "SESSION_MAX_PER_USER", good: []string{"1", "10000"}, bad: []string{"0", "10001", "x"}},
		{name: "STREAMS_PER_USER", good: []string{"1", "10000"}, bad: []string{"0", "-1", "10001", "many"}},
		{name: "SECRET_KEY", good: []string{key, key + ", " + key}, bad: []string{"hunter2", key + ",hunter2", key + ",", key[1:]}},
		{name: "ADMIN_EMAIL", with: vars{"ADMIN_PASSWORD": "twelve-chars"}, good: []string{"a@b", "Root@Example.COM"}, bad: []string{"root", "Root <a@b>"}},
		{name: "ADMIN_PASSWORD", with: vars{"ADMIN_EMAIL": "a@b"}, good: []string{"twelve-chars", strings.Repeat("é", 128)}, bad: []string{"hunter2", strings.Repeat("hunter2", 19)}},
		{name: "DEMO", good: []string{"true", "false"}, bad: []string{"yes", "demo"}},
		{name: "TRUSTED_PROXIES", good: []string{"10.0.0.0/8", "192.0.2.1, ::1", "2001:db8::/32"}, bad: []string{"proxy", "10.0.0.0/33", "10.0.0.1,", "*"}},
		{name: "LOG_LEVEL", good: []string{"debug", "info", "warn", "error"}, bad: []string{"trace", "loud", "info+1"}},
		{name: "LOG_FORMAT", good: []string{"text", "json"}, bad: []string{"xml"}},
		{name: "SHUTDOWN_TIMEOUT", good: []string{"1s", "1m"}, bad: []string{"0s", "-1s", "15"}},
		{name: "SHUTDOWN_DELAY", good: []string{"0", "5s"}, bad: []string{"-1s", "5"}},
	}
	for _, name := range variables() {
		if !slices.ContainsFunc(rows, func(r row) bool { return r.name == name }) {
			t.Errorf("no row for %s", name)
		}
	}
	for _, r := range rows {
		for _, value := range r.good {
			load(t, r.with.and(r.name, value))
		}
		for _, value := range r.bad {
			_, err := Load(r.with.and(r.name, value).getenv, "")
			checkRefused(t, r.name, value, err)
		}
	}
}

// checkRefused wants one line that names the variable and says what is allowed,
// with the value unless that is a secret.
func checkRefused(t *testing.T, name, value string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s=%q was accepted", name, value)
		return
	}
	line := err.Error()
	if !strings.HasPrefix(line, name+"=") || !strings.Contains(line, ": must be ") || strings.ContainsAny(line, "\n\r\x00") {
		t.Errorf("%s=%q: not one line that names the variable and what is allowed: %q", name, value, line)
	}
	if strings.Contains(line, "hunter2") || strings.Contains(line, key[1:]) {
		t.Errorf("%s: shows the secret: %s", name, line)
	}
	secret := strings.Contains(value, "hunter2") || strings.Contains(value, key[1:])
	if !secret && !strings.Contains(line, fmt.Sprintf("%q", value)) {
		t.Errorf("%s=%q: does not show the value: %s", name, value, line)
	}
}

func TestConfigThatNeedsAnotherVariable(t *testing.T) {
	for want, v := range map[string]vars{
		`ADMIN_PASSWORD is not set: must be set together with ADMIN_EMAIL`:                           {"ADMIN_EMAIL": "a@b"},
		`ADMIN_EMAIL is not set: must be set together with ADMIN_PASSWORD`:                           {"ADMIN_PASSWORD": "twelve-chars"},
		`REDIS_HOST="h": must be unset when REDIS_URL is set`:                                        {"REDIS_HOST": "h", "REDIS_URL": "redis://h"},
		`RATE_LIMIT_ALGORITHM="sliding-log": must be auto or gcra when RATE_LIMIT_MAX is above 1000`: {"RATE_LIMIT_ALGORITHM": "sliding-log", "RATE_LIMIT_MAX": "1001"},
	} {
		if _, err := Load(v.getenv, ""); err == nil || err.Error() != want {
			t.Errorf("%v\n got %v\nwant %s", v, err, want)
		}
	}
}

func TestConfigConveniences(t *testing.T) {
	c := load(t, vars{"ADDR": ":9000", "ADMIN_EMAIL": " Root@Example.com ", "ADMIN_PASSWORD": "twelve-chars", "SECRET_KEY": key + " , " + key, "TRUSTED_PROXIES": "10.0.0.0/8, ::1"})
	if c.PublicURL != "http://localhost:9000" || c.Secure() || !c.EmbeddedRedis() {
		t.Errorf("conveniences of %v", c)
	}
	if c.AdminEmail != "root@example.com" || !slices.Equal(c.SecretKeys, []string{key, key}) || !slices.Equal(c.TrustedProxies, []string{"10.0.0.0/8", "::1"}) {
		t.Errorf("normalized: %q %d %q", c.AdminEmail, len(c.SecretKeys), c.TrustedProxies)
	}
	if c := load(t, vars{"REDIS_ENABLED": "false"}); c.EmbeddedRedis() {
		t.Error("REDIS_ENABLED=false has an embedded Redis")
	}
}

func TestConfigRedisClient(t *testing.T) {
	type client struct {
		addr, password string
		db             int
	}
	for _, row := range []struct {
		v    vars
		want client
	}{
		{vars{"REDIS_URL": "redis://u:p@h:1/2"}, client{"h:1", "p", 2}},
		{vars{"REDIS_HOST": "h"}, client{"h:6379", "", 0}},
		{vars{"REDIS_HOST": "::1", "REDIS_PORT": "1", "REDIS_PASSWORD": "p", "REDIS_DB": "3"}, client{"[::1]:1", "p", 3}},
		{vars{"REDIS_PORT": "6380"}, client{"127.0.0.1:6380", "", 0}},
	} {
		c := load(t, row.v)
		opt, err := c.RedisClient()
		if got := (client{opt.InitAddress[0], opt.Password, opt.SelectDB}); err != nil || got != row.want || c.EmbeddedRedis() {
			t.Errorf("%v: %+v, %v; want %+v", row.v, got, err, row.want)
		}
	}
}

func TestConfigHidesSecrets(t *testing.T) {
	c := load(t, vars{
		"SECRET_KEY": key, "ADMIN_EMAIL": "a@b", "ADMIN_PASSWORD": "hunter2hunter2", "REDIS_URL": "redis://hunter2@h:6379/1",
		"DATABASE_URL": "postgres://u:hunter2@db/gate?sslmode=disable&sslpassword=hunter2",
	})
	c.RedisPassword = "hunter2"
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("configuration", "config", c)
	for _, shown := range []string{c.String(), fmt.Sprintf("%v %+v %#v %s", c, c, c, &c), log.String()} {
		if strings.Contains(shown, "hunter2") || strings.Contains(shown, key) {
			t.Errorf("shows a secret: %s", shown)
		}
		for _, want := range []string{"hidden@h:6379/1", "hidden@db/gate", "sslmode=disable", "a@b", "127.0.0.1:8080"} {
			if !strings.Contains(strings.ReplaceAll(shown, `\u0026`, "&"), want) {
				t.Errorf("does not show %s: %s", want, shown)
			}
		}
	}
	for _, value := range []string{"host=db password=hunter2", "u:hunter2@h/db", "x?password=hunter2", "postgres://h/db?password=hunter2;x"} {
		if got := redact("DATABASE_URL", value); strings.Contains(got, "hunter2") {
			t.Errorf("redact(%q) = %q", value, got)
		}
	}
	if got := redact("SECRET_KEY", ""); got != "" {
		t.Errorf("an unset secret is shown as %q", got)
	}
}

func TestConfigFile(t *testing.T) {
	dotenv := filepath.Join(t.TempDir(), ".env")
	write := func(text string) {
		if err := os.WriteFile(dotenv, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# a comment\nADDR=:1\nLOG_LEVEL=debug\nSECRET_KEY='" + key + "$x#'\nOTHER=thing\n")
	c, err := Load(vars{"ADDR": ":2", "LOG_LEVEL": ""}.getenv, dotenv)
	if err != nil {
		t.Fatal(err)
	}
	if c.Addr != ":2" || c.LogLevel != slog.LevelDebug || c.SecretKeys[0] != key+"$x#" {
		t.Errorf("the environment wins where it is set, the file counts elsewhere: %v", c)
	}
	write("LOG_LEVEL=loud")
	_, err = Load(vars{}.getenv, dotenv)
	checkRefused(t, "LOG_LEVEL", "loud", err)

	write("ADMIN-PASSWORD=hunter2")
	if _, err = Load(vars{}.getenv, dotenv); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.HasPrefix(err.Error(), dotenv) {
		t.Errorf("a file that is no list of NAME=value: %v", err)
	}
	if _, err = Load(vars{}.getenv, filepath.Dir(dotenv)); err == nil {
		t.Error("a folder in place of the file was accepted")
	}
}

// TestExampleFile holds .env.example to Config: every variable once, with its
// default and a word about it, and a copy of the file changes nothing.
func TestExampleFile(t *testing.T) {
	text, err := os.ReadFile("../../.env.example")
	if err != nil {
		t.Fatal(err)
	}
	defaults := map[string]string{}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		defaults[field.Tag.Get("env")] = field.Tag.Get("envDefault")
	}
	var listed []string
	explained := false
	for i, line := range strings.Split(string(text), "\n") {
		name, value, found := strings.Cut(strings.TrimPrefix(line, "#"), "=")
		switch {
		case strings.HasPrefix(line, "# "):
			explained = true
			continue
		case line == "":
			explained = false
			continue
		case !found || !slices.Contains(variables(), name):
			t.Errorf("line %d: %q is neither an explanation nor a variable", i+1, line)
			continue
		case !explained:
			t.Errorf("line %d: %s has no explanation above it", i+1, name)
		}
		listed = append(listed, name)
		if want := defaults[name]; want != "" && value != want {
			t.Errorf("%s=%s: the default is %s", name, value, want)
		}
	}
	slices.Sort(listed)
	all := variables()
	slices.Sort(all)
	if !slices.Equal(listed, all) {
		t.Errorf("lists\n %v\nConfig has\n %v", listed, all)
	}
	if _, err := godotenv.Unmarshal(string(text)); err != nil {
		t.Error(err)
	}
	c, err := Load(vars{}.getenv, "../../.env.example")
	if err != nil || !reflect.DeepEqual(c, load(t, nil)) {
		t.Errorf("a copy of the example changes the configuration: %v, %v", c, err)
	}
}

// The idle timeout's default follows an absolute one that is shorter; what is set must
// not be longer.
func TestSessionTimeoutsGoTogether(t *testing.T) {
	if c := load(t, vars{"SESSION_ABSOLUTE_TIMEOUT": "10m"}); c.SessionIdleTimeout != 10*time.Minute {
		t.Errorf("idle %v", c.SessionIdleTimeout)
	}
	_, err := Load(vars{"SESSION_IDLE_TIMEOUT": "24h"}.getenv, "")
	if want := `SESSION_IDLE_TIMEOUT="24h": must be at most SESSION_ABSOLUTE_TIMEOUT, which is 12h0m0s`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
