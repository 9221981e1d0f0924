package config

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestPrintingHidesSecrets(t *testing.T) {
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
