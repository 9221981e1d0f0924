package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestValues has a row for every variable.
func TestValues(t *testing.T) {
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
		{name: "DATABASE_URL", good: []string{"x.db", "a = b", "/var/lib/gate house.db", `C:\gate.db`, ":memory:", "postgres://u:p@h/db", "postgresql://h1,h2:5432/db?sslmode=disable", "postgres:///db?host=/run"},
			bad: []string{"mysql://u:hunter2@h/db", "sqlite:x.db", "postgres:u:hunter2@h", "postgres://u:hunter2@h:port/db", "x\n.db", "u:hunter2@h/db", "host=db user=u password=hunter2 dbname=x", "dbname=x", "host = db user = u password = hunter2", "service=prod"}},
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
		{name: "LOCK_MAX_HOLD", good: []string{"1m", "12h", "24h"}, bad: []string{"59s", "25h", "-1h", "12"}},
		{name: "LOCK_PROTECTION", good: []string{"1s", "5m", "24h"}, bad: []string{"0s", "999ms", "25h", "5"}},
		{name: "LOCK_ASK_TIMEOUT", good: []string{"1s", "2m", "1h"}, bad: []string{"0s", "999ms", "61m", "2"}},
		{name: "RATE_LIMIT_MAX", good: []string{"1", "1000000"}, bad: []string{"0", "-1", "1000001", "1e3"}},
		{name: "RATE_LIMIT_WINDOW", good: []string{"1s", "90s", "24h"}, bad: []string{"0s", "999ms", "1500ms", "24h1s", "60"}},
		{name: "RATE_LIMIT_ALGORITHM", good: []string{"auto", "sliding-log", "gcra"}, bad: []string{"fixed-window", "sliding_log"}},
		{name: "RATE_LIMIT_ALGORITHM", with: vars{"RATE_LIMIT_MAX": "1000"}, good: []string{"sliding-log"}},
		{name: "RATE_LIMIT_ALGORITHM", with: vars{"RATE_LIMIT_MAX": "1001"}, good: []string{"auto", "gcra"}, bad: []string{"sliding-log"}},
		{name: "RATE_LIMIT_ON_REDIS_DOWN", good: []string{"local", "open", "closed"}, bad: []string{"remote"}},
		{name: "RATE_LIMIT_LEASE", good: []string{"auto", "0", "1", "300"}, bad: []string{"-1", "301", "1s", "Auto", "99999999999999999999"}},
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
