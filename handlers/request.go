package handlers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

const (
	maxBody   = 1 << 20
	maxWait   = 30 * time.Second
	maxFilter = 200 // characters of a query parameter
	maxErrors = 20  // fields that an answer names
	maxName   = 100 // characters of a name that it repeats
)

var (
	idPattern       = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	resourcePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}:[A-Za-z0-9_-]{1,64}$`)
	visiblePattern  = regexp.MustCompile(`^[!-~]{1,255}$`)
)

// decode reads the JSON body into T: one object, with no field that T does not
// have and none of a wrong type. No such request has query parameters.
func decode[T any](c *gin.Context) (T, error) { return decodeBody[T](c, false) }

// decodeOptional is decode, but an empty body is T's zero value.
func decodeOptional[T any](c *gin.Context) (T, error) { return decodeBody[T](c, true) }

func decodeBody[T any](c *gin.Context, optional bool) (T, error) {
	var into T
	raw, err := readBody(c, optional)
	if err != nil {
		return into, err
	}
	var fields map[string]json.RawMessage
	var notObject error
	var syntax *json.SyntaxError
	if raw != nil {
		if notObject = json.Unmarshal(raw, &fields); errors.As(notObject, &syntax) {
			return into, badRequest("The body is not one JSON document.")
		}
	}
	if _, err := query(c); err != nil || raw == nil {
		return into, err
	}
	if notObject != nil || fields == nil {
		return into, models.Invalid("body", "must be a JSON object")
	}
	if errs := checkFields(fields, reflect.TypeFor[T]()); errs != nil {
		return into, &models.ValidationError{Errors: errs}
	}
	var wrongType *json.UnmarshalTypeError
	if err := json.Unmarshal(raw, &into); errors.As(err, &wrongType) {
		return into, models.Invalid(wrongType.Field, "must be "+jsonName(wrongType.Type))
	} else if err != nil {
		return into, badRequest("The body is not one JSON document.")
	}
	return into, nil
}

func readBody(c *gin.Context, optional bool) ([]byte, error) {
	tooLarge := &requestError{problemFor("content-too-large", "The body is larger than 1 MiB.")}
	if c.Request.ContentLength > maxBody && strings.EqualFold(c.GetHeader("Expect"), "100-continue") {
		return nil, tooLarge // without being sent; who sends it anyway reads the answer only afterwards
	}
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, maxBody)
	raw, err := io.ReadAll(c.Request.Body)
	var passedLimit *http.MaxBytesError
	switch {
	case errors.As(err, &passedLimit):
		return nil, tooLarge
	case err != nil:
		return nil, badRequest("The body could not be read.")
	case len(bytes.TrimSpace(raw)) == 0 && optional:
		return nil, nil
	}
	if len(raw) > 0 || c.GetHeader("Content-Type") != "" {
		kind, params, err := mime.ParseMediaType(c.GetHeader("Content-Type"))
		if charset := params["charset"]; err != nil || kind != "application/json" || (charset != "" && !strings.EqualFold(charset, "utf-8")) {
			return nil, &requestError{problemFor("unsupported-media-type", "Send the body as Content-Type: application/json, in UTF-8.")}
		}
	}
	switch {
	case len(raw) == 0:
		return nil, badRequest("The body is empty; send a JSON object.")
	case !utf8.Valid(raw):
		return nil, badRequest("The body is not UTF-8.")
	}
	return raw, nil
}

// checkFields reports the fields that t does not have, and nulls. The standard
// decoder alone would take Title for title and null for nothing.
func checkFields(fields map[string]json.RawMessage, t reflect.Type) []models.FieldError {
	known := map[string]bool{}
	for i := range t.NumField() {
		known[strings.Split(t.Field(i).Tag.Get("json"), ",")[0]] = true
	}
	var errs []models.FieldError
	for name, value := range fields {
		switch {
		case !known[name]:
			errs = append(errs, models.FieldError{Field: name, Message: "is not a known field"})
		case string(value) == "null":
			errs = append(errs, models.FieldError{Field: name, Message: "must not be null"})
		}
	}
	return listed(errs)
}

// listed is what an answer tells of what is wrong, sorted: the first of very many, and
// not all of a very long name.
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

// missing reports a required field that is not there.
func missing(field string, value *string) error {
	if value != nil {
		return nil
	}
	return models.Invalid(field, "is required")
}

// joinInvalid makes one answer of everything that is wrong with an input; nil if
// nothing is.
func joinInvalid(problems ...error) error {
	all := &models.ValidationError{}
	for _, p := range problems {
		var wrong *models.ValidationError
		if errors.As(p, &wrong) {
			all.Errors = append(all.Errors, wrong.Errors...)
		}
	}
	if len(all.Errors) == 0 {
		return nil
	}
	return all
}

// query returns the query parameters, each at most once and all of them known.
func query(c *gin.Context, known ...string) (map[string]string, error) {
	params, err := url.ParseQuery(c.Request.URL.RawQuery)
	if err != nil {
		return nil, models.Invalid("query", "is not well-formed")
	}
	values := map[string]string{}
	var errs []models.FieldError
	for name, all := range params {
		switch {
		case !slices.Contains(known, name):
			errs = append(errs, models.FieldError{Field: name, Message: "is not a known parameter"})
		case len(all) > 1:
			errs = append(errs, models.FieldError{Field: name, Message: "must be given once"})
		case !utf8.ValidString(all[0]) || strings.ContainsRune(all[0], 0):
			errs = append(errs, models.FieldError{Field: name, Message: "must be UTF-8 without NUL"})
		default:
			values[name] = all[0]
		}
	}
	if errs != nil {
		return nil, &models.ValidationError{Errors: listed(errs)}
	}
	return values, nil
}

// page reads limit and cursor.
func page(params map[string]string) (models.Page, error) {
	p := models.Page{Limit: 50, Cursor: params["cursor"]}
	limit, given := params["limit"]
	if !given {
		return p, nil
	}
	n, err := strconv.ParseUint(limit, 10, 16)
	if err != nil || n < 1 || n > 200 {
		return p, models.Invalid("limit", "must be an integer from 1 to 200")
	}
	p.Limit = int(n)
	return p, nil
}

// pathID is the id in the path.
func pathID(c *gin.Context) (string, error) {
	id := c.Param("id")
	if !idPattern.MatchString(id) {
		return "", models.Invalid("id", "must be 1 to 64 of A-Z a-z 0-9 _ -")
	}
	return id, nil
}

// ttlOf checks an optional lease in seconds.
func ttlOf(seconds *int64) (time.Duration, error) {
	if seconds == nil {
		return 0, nil
	}
	if *seconds < 1 || *seconds > 3600 {
		return 0, models.Invalid("ttl", "must be an integer from 1 to 3600 (seconds)")
	}
	return time.Duration(*seconds) * time.Second, nil
}

// waitOf reads "Prefer: wait=N" (RFC 7240), whose parameters mean nothing here, and
// says on the answer what was applied. Anything malformed is ignored.
func waitOf(c *gin.Context, fallback time.Duration) time.Duration {
	for preference := range strings.SplitSeq(strings.Join(c.Request.Header.Values("Prefer"), ","), ",") {
		preference, _, _ = strings.Cut(preference, ";")
		name, value, _ := strings.Cut(strings.TrimSpace(preference), "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		digits := strings.TrimSpace(value)
		if quoted, err := strconv.Unquote(digits); err == nil {
			digits = quoted
		}
		if digits == "" || strings.Trim(digits, "0123456789") != "" {
			return fallback
		}
		seconds, _ := strconv.ParseUint(digits, 10, 32) // out of range is the largest number
		wait := min(time.Duration(seconds)*time.Second, maxWait)
		c.Header("Preference-Applied", fmt.Sprintf("wait=%d", int(wait.Seconds())))
		return wait
	}
	return fallback
}

// ifMatch reads If-Match; nil if it is absent. Tags that are none of ours, weak
// ones too, match nothing.
func ifMatch(c *gin.Context) *models.IfMatch {
	values := c.Request.Header.Values("If-Match")
	if len(values) == 0 {
		return nil
	}
	match := &models.IfMatch{}
	for tag := range strings.SplitSeq(strings.Join(values, ","), ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" {
			match.Any = true
		}
		if version, ok := versionOf(tag); ok {
			match.Versions = append(match.Versions, version)
		}
	}
	return match
}

// noneMatch reports whether If-None-Match names the version, weakly or not.
func noneMatch(c *gin.Context, version int64) bool {
	for tag := range strings.SplitSeq(strings.Join(c.Request.Header.Values("If-None-Match"), ","), ",") {
		tag = strings.TrimSpace(tag)
		if got, ok := versionOf(strings.TrimPrefix(tag, "W/")); tag == "*" || (ok && got == version) {
			return true
		}
	}
	return false
}

func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

func versionOf(tag string) (int64, bool) {
	if len(tag) < 3 || tag[0] != '"' || tag[len(tag)-1] != '"' {
		return 0, false
	}
	version, err := strconv.ParseInt(tag[1:len(tag)-1], 10, 64)
	return version, err == nil && etag(version) == tag
}

// seconds is d in whole seconds, rounded up: nothing that is left shows as 0.
func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }
