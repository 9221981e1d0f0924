package config

import (
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"strings"
)

// String lists the variables and their values, without secrets.
func (c Config) String() string {
	var pairs []string
	for _, a := range c.attrs() {
		pairs = append(pairs, a.String())
	}
	return strings.Join(pairs, " ")
}

// GoString is String, so that %#v shows no secret either.
func (c Config) GoString() string { return c.String() }

// LogValue groups the variables and their values, without secrets.
func (c Config) LogValue() slog.Value { return slog.GroupValue(c.attrs()...) }

func (c Config) attrs() []slog.Attr {
	var attrs []slog.Attr
	for i, field := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		value := reflect.ValueOf(c).Field(i)
		shown := fmt.Sprint(value.Interface())
		if value.Kind() == reflect.Slice {
			shown = strings.Trim(shown, "[]") // an empty list is an empty value
		}
		name := field.Tag.Get("env")
		attrs = append(attrs, slog.String(name, redact(name, shown)))
	}
	return attrs
}

const hidden = "(hidden)"

// redact hides what must not be in a log: secrets, and the user, the
// password and secret parameters of a URL. A value that it cannot take apart
// safely it hides whole: a password with an unescaped "/" or "#" in it moves
// the parts of a URL about.
func redact(name, value string) string {
	switch {
	case strings.HasSuffix(name, "_URL") && mayBeSecret(name):
		return redactURL(value)
	case mayBeSecret(name) && value != "":
		return hidden
	}
	if strings.Contains(value, "://") && strings.Contains(value, "@") {
		return redactURL(value) // also where no password belongs
	}
	return value
}

func redactURL(value string) string {
	if !strings.ContainsAny(value, ":@=") {
		return value // a path
	}
	u, err := url.Parse(value)
	if err != nil || u.Fragment != "" || u.User == nil && strings.Contains(value, "@") {
		return hidden
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.RawQuery == "" && namesSecret(value) {
		return hidden
	}
	if u.User == nil && !namesSecret(u.RawQuery) {
		return value
	}
	if u.User != nil {
		u.User = url.User("hidden")
	}
	for key := range query {
		if namesSecret(key) {
			query.Set(key, "hidden")
		}
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// namesSecret also finds "password=" in a database path that was meant to be a
// list of connection settings.
func namesSecret(s string) bool {
	s = strings.ToLower(s)
	return strings.Contains(s, "password") || strings.Contains(s, "secret") || strings.Contains(s, "token")
}
