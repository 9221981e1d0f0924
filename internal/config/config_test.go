package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

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

func TestDefaults(t *testing.T) {
	want := Config{
		Addr: "127.0.0.1:8080", PublicURL: "http://127.0.0.1:8080", AppEnv: "development",
		DatabaseURL: "gatehouse.db", DatabaseTimeout: time.Second, AuditRetention: 9600 * time.Hour,
		RedisEnabled: true, RedisPort: 6379, RedisKeyPrefix: "gatehouse:", RedisTimeout: 100 * time.Millisecond,
		LockOnRedisDown: models.OnRedisDownOpen, LockMaxPerUser: 20, LockMaxHold: 12 * time.Hour, LockProtection: 5 * time.Minute, LockAskTimeout: 2 * time.Minute,
		RateLimitMax: 300, RateLimitWindow: time.Minute, RateLimitAlgorithm: models.AlgorithmAuto, RateLimitOnRedisDown: models.OnRedisDownLocal,
		RateLimitLease:    models.BlockAuto,
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

func TestProduction(t *testing.T) {
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

func TestVariablesThatGoTogether(t *testing.T) {
	for want, v := range map[string]vars{
		`SESSION_IDLE_TIMEOUT="24h": must be at most SESSION_ABSOLUTE_TIMEOUT, which is 12h0m0s`:     {"SESSION_IDLE_TIMEOUT": "24h"},
		`ADMIN_PASSWORD is not set: must be set together with ADMIN_EMAIL`:                           {"ADMIN_EMAIL": "a@b"},
		`ADMIN_EMAIL is not set: must be set together with ADMIN_PASSWORD`:                           {"ADMIN_PASSWORD": "twelve-chars"},
		`REDIS_HOST="h": must be unset when REDIS_URL is set`:                                        {"REDIS_HOST": "h", "REDIS_URL": "redis://h"},
		`RATE_LIMIT_ALGORITHM="sliding-log": must be auto or gcra when RATE_LIMIT_MAX is above 1000`: {"RATE_LIMIT_ALGORITHM": "sliding-log", "RATE_LIMIT_MAX": "1001"},
	} {
		if _, err := Load(v.getenv, ""); err == nil || err.Error() != want {
			t.Errorf("%v\n got %v\nwant %s", v, err, want)
		}
	}
	if c := load(t, vars{"SESSION_ABSOLUTE_TIMEOUT": "10m"}); c.SessionIdleTimeout != 10*time.Minute {
		t.Errorf("the default of the idle timeout is above a shorter absolute one: %v", c.SessionIdleTimeout)
	}
}

func TestConveniences(t *testing.T) {
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

func TestRedisClient(t *testing.T) {
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
