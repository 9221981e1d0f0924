package handlers

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
)

const (
	maxWait   = 30 * time.Second
	maxFilter = 200 // characters of a query parameter

	resourceRule = "must be a name such as process:42"
)

// isID reports whether text can be an ID in a path.
func isID(text string) bool { return models.IsName(text, "_-") }

// isResource reports whether text can name a lock, as process:42 does.
func isResource(text string) bool {
	kind, id, _ := strings.Cut(text, ":")
	return isID(kind) && isID(id)
}

// isVisible reports whether text has 1 to 255 visible ASCII characters and nothing else.
func isVisible(text string) bool {
	hidden := func(r rune) bool { return r < '!' || r > '~' }
	return text != "" && len(text) <= 255 && !strings.ContainsFunc(text, hidden)
}

// signedIn is the session of a request; RequireSession must come before it.
func signedIn(c *gin.Context) models.Session {
	session, _ := middleware.SessionFrom(c)
	return session
}

var errOtherUser = models.NewProblem("forbidden", "Another user is signed in now.")

// refuseOtherUser refuses what a page asks for its user, whom it names as user, once another one has
// signed in in the same browser.
func refuseOtherUser(c *gin.Context, values map[string]string) error {
	if page, named := values["user"]; named && page != signedIn(c).User.ID {
		return errOtherUser
	}
	return nil
}

// answerJSON sends a JSON document.
func answerJSON(c *gin.Context, status int, body any) error {
	c.JSON(status, body)
	return nil
}

// noContent answers 204.
func noContent(c *gin.Context) error {
	c.Status(http.StatusNoContent)
	return nil
}

// missing is an error if a required field is absent.
func missing(field string, value *string) error {
	if value != nil {
		return nil
	}
	return models.Invalid(field, "is required")
}

// joinInvalid joins validation errors into one; nil if there are none.
func joinInvalid(problems ...error) error {
	var all []models.FieldError
	for _, p := range problems {
		if p == nil {
			continue
		}
		var wrong *models.ValidationError
		if errors.As(p, &wrong) {
			all = append(all, wrong.Errors...)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return &models.ValidationError{Errors: all}
}

// query returns the query parameters. Each must be known and come at most once.
func query(c *gin.Context, known ...string) (map[string]string, error) {
	if c.Request.URL.RawQuery == "" {
		return nil, nil
	}
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

// pathID is the ID in the path.
func pathID(c *gin.Context) (string, error) {
	id := c.Param("id")
	if !isID(id) {
		return "", models.Invalid("id", "must be 1 to 64 of A-Z a-z 0-9 _ -")
	}
	return id, nil
}

// ttlOf checks an optional lease in seconds; without one it is 0.
func ttlOf(seconds *int64) (time.Duration, error) {
	if seconds == nil {
		return 0, nil
	}
	if *seconds < 1 || *seconds > 3600 {
		return 0, models.Invalid("ttl", "must be an integer from 1 to 3600 (seconds)")
	}
	return time.Duration(*seconds) * time.Second, nil
}

const preferenceApplied = "Preference-Applied"

// waitOf reads "Prefer: wait=N" (RFC 7240), ignores its parameters, and names the applied wait
// in the answer. Without a well-formed wait it returns fallback.
func waitOf(c *gin.Context, fallback time.Duration) time.Duration {
	for preference := range strings.SplitSeq(strings.Join(c.Request.Header.Values("Prefer"), ","), ",") {
		preference, _, _ = strings.Cut(preference, ";")
		name, value, _ := strings.Cut(strings.TrimSpace(preference), "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		digits := strings.TrimSpace(value)
		if inner, ok := strings.CutPrefix(digits, `"`); ok && strings.HasSuffix(inner, `"`) {
			digits = strings.TrimSuffix(inner, `"`)
		}
		if digits == "" || strings.Trim(digits, "0123456789") != "" {
			return fallback
		}
		seconds, _ := strconv.ParseUint(digits, 10, 32) // out of range is the largest number
		wait := min(time.Duration(seconds)*time.Second, maxWait)
		c.Header(preferenceApplied, fmt.Sprintf("wait=%d", int(wait.Seconds())))
		return wait
	}
	return fallback
}

// ifMatch reads If-Match; nil if it is absent. Weak tags, and tags that this server never
// makes, match nothing.
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

// noneMatch reports whether If-None-Match names the version, as a weak or strong tag.
func noneMatch(c *gin.Context, version int64) bool {
	for tag := range strings.SplitSeq(strings.Join(c.Request.Header.Values("If-None-Match"), ","), ",") {
		tag = strings.TrimSpace(tag)
		if got, ok := versionOf(strings.TrimPrefix(tag, "W/")); tag == "*" || (ok && got == version) {
			return true
		}
	}
	return false
}

func etag(version int64) string {
	var buffer [24]byte
	return string(append(strconv.AppendInt(append(buffer[:0], '"'), version, 10), '"'))
}

func versionOf(tag string) (int64, bool) {
	if len(tag) < 3 || tag[0] != '"' || tag[len(tag)-1] != '"' {
		return 0, false
	}
	version, err := strconv.ParseInt(tag[1:len(tag)-1], 10, 64)
	return version, err == nil && etag(version) == tag
}

// seconds is d in whole seconds, rounded up, so that only 0 shows as 0.
func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }
