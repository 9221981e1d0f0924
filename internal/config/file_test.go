package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/joho/godotenv"
)

func TestDotEnvFile(t *testing.T) {
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

// Every variable that may have a secret in it can be read from a file, the others cannot.
func TestSecretFiles(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c := load(t, vars{
		"SECRET_KEY_FILE": write("key", key+"\n"), "REDIS_PASSWORD_FILE": write("redis", "hunter 2\r\n"), "REDIS_HOST": "h",
		"DATABASE_URL_FILE": write("db", "postgres://u:p@h/db"), "ADMIN_EMAIL": "a@b.c", "ADMIN_PASSWORD_FILE": write("admin", "hunter2hunter2"),
		"ADDR_FILE": write("addr", ":1"), "REDIS_URL_FILE": "",
	})
	if c.SecretKeys[0] != key || c.RedisPassword != "hunter 2" || c.DatabaseURL != "postgres://u:p@h/db" || c.AdminPassword != "hunter2hunter2" {
		t.Error("a secret is not what is in its file")
	}
	if c.Addr != "127.0.0.1:8080" {
		t.Errorf("ADDR is read from a file: %s", c.Addr)
	}
	if c := load(t, vars{"REDIS_URL_FILE": write("url", "redis://h:1")}); c.RedisURL != "redis://h:1" {
		t.Errorf("REDIS_URL is %s", c.RedisURL)
	}
	for name, path := range map[string]string{
		"missing": filepath.Join(folder, "none"), "a folder": folder, "empty": write("empty", "\n"), "too long": write("long", strings.Repeat("x", maxSecret+1)),
	} {
		if _, err := Load(vars{"REDIS_PASSWORD_FILE": path}.getenv, ""); err == nil || !strings.HasPrefix(err.Error(), "REDIS_PASSWORD_FILE=") {
			t.Errorf("%s: %v", name, err)
		}
	}
	dotenv := write(".env", "SECRET_KEY_FILE=none\nADMIN_PASSWORD_FILE="+filepath.Join(folder, "admin")+"\nADMIN_EMAIL=a@b.c\n")
	if c, err := Load(vars{"SECRET_KEY": key}.getenv, dotenv); err != nil || c.SecretKeys[0] != key || c.AdminPassword != "hunter2hunter2" {
		t.Errorf("the environment does not win over the file .env: %v", err)
	}
	_, err := Load(vars{"SECRET_KEY": key, "SECRET_KEY_FILE": filepath.Join(folder, "key")}.getenv, "")
	checkRefused(t, "SECRET_KEY_FILE", filepath.Join(folder, "key"), err)
	_, err = Load(vars{"ADMIN_EMAIL": "a@b.c", "ADMIN_PASSWORD_FILE": write("short", "hunter2")}.getenv, "")
	checkRefused(t, "ADMIN_PASSWORD", "hunter2", err)
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
