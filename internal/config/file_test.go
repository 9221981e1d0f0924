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
