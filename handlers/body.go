package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

const (
	maxBody   = 1 << 20  // bytes of any body; middleware.LimitBody enforces it for all routes
	maxForm   = 64 << 10 // bytes of a form
	maxErrors = 20       // fields that an answer names
	maxName   = 100      // characters of a field's name in an answer
)

// decode reads the JSON body into T. The body must be one object, with no field that T does
// not have, that is of a wrong type or that comes twice. The request must not have query
// parameters beyond those in known.
func decode[T any](c *gin.Context, known ...string) (T, error) {
	return decodeBody[T](c, false, known...)
}

// decodeOptional is decode, but an empty body gives T's zero value.
func decodeOptional[T any](c *gin.Context) (T, error) { return decodeBody[T](c, true) }

func decodeBody[T any](c *gin.Context, optional bool, known ...string) (T, error) {
	var into T
	raw, err := readBody(c, optional)
	if err != nil {
		return into, err
	}
	if raw != nil && !json.Valid(raw) {
		return into, badRequest("The body is not one JSON document.")
	}
	if _, err := query(c, known...); err != nil || raw == nil {
		return into, err
	}
	fields, errs := checkNames(raw)
	switch {
	case errs != nil:
		return into, &models.ValidationError{Errors: errs}
	case bytes.TrimLeft(raw, jsonSpace)[0] != '{':
		return into, models.Invalid("body", "must be a JSON object")
	}
	if errs := checkFields(fields, reflect.TypeFor[T]()); errs != nil {
		return into, &models.ValidationError{Errors: errs}
	}
	if err := json.Unmarshal(raw, &into); err != nil {
		var mismatch *json.UnmarshalTypeError
		if errors.As(err, &mismatch) {
			return into, models.Invalid(mismatch.Field, "must be "+jsonName(mismatch.Type))
		}
		return into, badRequest("The body is not one JSON document.")
	}
	return into, nil
}

// readBody returns a JSON body as it was sent, nil if it is empty and optional. It does not
// read a body that it refuses for its length or type.
func readBody(c *gin.Context, optional bool) ([]byte, error) {
	const kind = "application/json"
	if err := refuseLength(c, maxBody); err != nil {
		return nil, err
	}
	if !hasType(c, kind) {
		if hasBody(c) || !optional && c.GetHeader("Content-Type") != "" {
			return nil, wrongType(kind)
		}
	}
	raw, err := io.ReadAll(c.Request.Body)
	switch {
	case err != nil:
		return nil, unreadable(err, maxBody)
	case len(bytes.TrimSpace(raw)) == 0 && optional:
		return nil, nil
	case len(raw) == 0:
		return nil, badRequest("The body is empty; send a JSON object.")
	case !utf8.Valid(raw):
		return nil, badRequest("The body is not UTF-8.")
	}
	return raw, nil
}

// formValues reads fields of a posted form; those that are absent are empty. Like
// middleware.LimitBody it takes no multipart form.
func formValues(c *gin.Context, names ...string) (map[string]string, error) {
	return formOf(c, maxForm, names...)
}

// formOf is formValues for a form of up to limit bytes.
func formOf(c *gin.Context, limit int64, names ...string) (map[string]string, error) {
	const kind = "application/x-www-form-urlencoded"
	if err := refuseLength(c, limit); err != nil {
		return nil, err
	}
	if !hasType(c, kind) && hasBody(c) {
		return nil, wrongType(kind)
	}
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, limit)
	if err := c.Request.ParseForm(); err != nil {
		return nil, unreadable(err, limit)
	}
	values := map[string]string{}
	for _, name := range names {
		value := c.Request.PostForm.Get(name)
		if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
			return nil, models.Invalid(name, "must be UTF-8 without NUL")
		}
		values[name] = value
	}
	return values, nil
}

// refuseLength refuses a body whose announced length is above limit.
func refuseLength(c *gin.Context, limit int64) error {
	if c.Request.ContentLength > limit {
		return tooLarge(limit)
	}
	return nil
}

// hasBody reports whether there is a body. If its length was not announced, it reads one
// byte: proxies also send empty bodies in this way.
func hasBody(c *gin.Context) bool {
	if c.Request.ContentLength >= 0 {
		return c.Request.ContentLength > 0
	}
	_, err := io.ReadFull(c.Request.Body, make([]byte, 1))
	return !errors.Is(err, io.EOF)
}

// hasType reports whether the Content-Type is kind, in UTF-8.
func hasType(c *gin.Context, kind string) bool {
	sent := c.GetHeader("Content-Type")
	if sent == kind {
		return true
	}
	got, params, err := mime.ParseMediaType(sent)
	charset := params["charset"]
	return err == nil && got == kind && (charset == "" || strings.EqualFold(charset, "utf-8"))
}

func tooLarge(limit int64) error {
	return models.NewProblem("content-too-large", fmt.Sprintf("The body is larger than %d KiB.", limit>>10))
}

func wrongType(kind string) error {
	return models.NewProblem("unsupported-media-type", "Send the body as Content-Type: "+kind+", in UTF-8.")
}

func unreadable(err error, limit int64) error {
	var passedLimit *http.MaxBytesError
	if errors.As(err, &passedLimit) {
		return tooLarge(limit)
	}
	return badRequest("The body could not be read.")
}

// checkFields reports fields that t does not have, and nulls. The standard decoder would take
// Title for title, and ignore null.
func checkFields(fields []jsonField, t reflect.Type) []models.FieldError {
	var known []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		known = append(known, name)
	}
	var errs []models.FieldError
	for _, field := range fields {
		switch {
		case !slices.Contains(known, field.name):
			errs = append(errs, models.FieldError{Field: field.name, Message: "is not a known field"})
		case field.null:
			errs = append(errs, models.FieldError{Field: field.name, Message: "must not be null"})
		}
	}
	return listed(errs)
}

// listed is the part of errs that an answer shows: sorted, only the first of very many, and
// with long names cut.
func listed(errs []models.FieldError) []models.FieldError {
	slices.SortFunc(errs, func(a, b models.FieldError) int { return strings.Compare(a.Field, b.Field) })
	errs = errs[:min(len(errs), maxErrors)]
	for i := range errs {
		if name := []rune(errs[i].Field); len(name) > maxName {
			errs[i].Field = string(name[:maxName-1]) + "…"
		}
	}
	return errs
}

func jsonName(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Int, reflect.Int64:
		return "an integer"
	default:
		return "an object"
	}
}
