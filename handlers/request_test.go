package handlers

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
)

func requestWith(method, body string, headers ...string) (*gin.Context, *httptest.ResponseRecorder) {
	w := httptest.NewRecorder()
	c, _ := gin.CreateTestContext(w)
	c.Request = httptest.NewRequest(method, "/", strings.NewReader(body))
	c.Request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		c.Request.Header.Add(headers[i], headers[i+1])
	}
	middleware.LimitBody(maxBody)(c)
	return c, w
}

func TestDecode(t *testing.T) {
	type body struct {
		Title *string  `json:"title"`
		TTL   *int64   `json:"ttl"`
		Roles []string `json:"roles"`
	}
	for name, row := range map[string]struct {
		body     string
		optional bool
		problem  string // "" is accepted
		field    string
	}{
		"object":            {body: `{"title":"x","ttl":5,"roles":["a"]}`},
		"empty object":      {body: `{}`},
		"empty, optional":   {body: "", optional: true},
		"empty":             {body: "", problem: "bad-request"},
		"blank":             {body: " \n", problem: "bad-request"},
		"not JSON":          {body: `{"title":`, problem: "bad-request"},
		"two values":        {body: `{} {}`, problem: "bad-request"},
		"trailing garbage":  {body: `{}x`, problem: "bad-request"},
		"not UTF-8":         {body: "{\"title\":\"\xff\"}", problem: "bad-request"},
		"list":              {body: `[]`, problem: "validation", field: "body"},
		"null":              {body: `null`, problem: "validation", field: "body"},
		"string":            {body: `"x"`, problem: "validation", field: "body"},
		"unknown field":     {body: `{"titel":"x"}`, problem: "validation", field: "titel"},
		"other case":        {body: `{"Title":"x"}`, problem: "validation", field: "Title"},
		"null field":        {body: `{"title":null}`, problem: "validation", field: "title"},
		"number for string": {body: `{"title":1}`, problem: "validation", field: "title"},
		"string for number": {body: `{"ttl":"1"}`, problem: "validation", field: "ttl"},
		"fraction":          {body: `{"ttl":1.5}`, problem: "validation", field: "ttl"},
		"number too large":  {body: `{"ttl":1e30}`, problem: "validation", field: "ttl"},
		"list of numbers":   {body: `{"roles":[1]}`, problem: "validation"},
		"too large":         {body: `{"title":"` + strings.Repeat("x", maxBody) + `"}`, problem: "content-too-large"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := requestWith(http.MethodPost, row.body)
			_, err := decodeBody[body](c, row.optional)
			if (err == nil) != (row.problem == "") {
				t.Fatalf("error %v, want problem %q", err, row.problem)
			}
			if err == nil {
				return
			}
			if got := problemOf(err).Name; got != row.problem {
				t.Errorf("problem %s, want %s", got, row.problem)
			}
			var invalid *models.ValidationError
			if row.field != "" && (!errors.As(err, &invalid) || invalid.Errors[0].Field != row.field) {
				t.Errorf("errors %+v, want field %s", err, row.field)
			}
		})
	}
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/", "application/json; charset=latin1"} {
		c, _ := requestWith(http.MethodPost, `{}`)
		c.Request.Header.Set("Content-Type", kind)
		if _, err := decode[body](c); err == nil || problemOf(err).Name != "unsupported-media-type" {
			t.Errorf("content type %q: %v", kind, err)
		}
	}
	c, _ := requestWith(http.MethodPost, `{}`)
	c.Request.Header.Set("Content-Type", "Application/JSON; charset=utf-8")
	if _, err := decode[body](c); err != nil {
		t.Errorf("content type with a parameter: %v", err)
	}
}

// A client that sends Expect: 100-continue gets no 100 for a body that is too large.
func TestDecodeRefusesWhatIsTooLargeUnread(t *testing.T) {
	c, _ := requestWith(http.MethodPost, "", "Expect", "100-continue")
	c.Request.ContentLength, c.Request.Body = maxBody+1, io.NopCloser(iotest.ErrReader(errors.New("read")))
	if _, err := decode[struct{}](c); err == nil || problemOf(err).Name != "content-too-large" {
		t.Errorf("got %v", err)
	}
}

// However much is wrong, the answer stays small.
func TestDecodeTellsTheFirstErrors(t *testing.T) {
	var body strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&body, `"%03d%s":1,`, i, strings.Repeat("ä", 200))
	}
	c, _ := requestWith(http.MethodPost, "{"+strings.TrimSuffix(body.String(), ",")+"}")
	_, err := decode[struct{}](c)
	var invalid *models.ValidationError
	if !errors.As(err, &invalid) || len(invalid.Errors) != maxErrors {
		t.Fatalf("got %v", err)
	}
	if want := "000" + strings.Repeat("ä", maxName-4) + "…"; invalid.Errors[0].Field != want {
		t.Errorf("field %q, want %q", invalid.Errors[0].Field, want)
	}
}

func TestWaitOf(t *testing.T) {
	for prefer, want := range map[string]struct {
		wait    time.Duration
		applied string
	}{
		"":                           {7 * time.Second, ""},
		"wait=3":                     {3 * time.Second, "wait=3"},
		"Wait = 3":                   {3 * time.Second, "wait=3"},
		`wait="4"`:                   {4 * time.Second, "wait=4"},
		"respond-async, wait=0":      {0, "wait=0"},
		"wait=31":                    {30 * time.Second, "wait=30"},
		"wait=-1":                    {7 * time.Second, ""},
		"wait=x":                     {7 * time.Second, ""},
		"wait":                       {7 * time.Second, ""},
		"waiting=3":                  {7 * time.Second, ""},
		"wait=99999999999999999999":  {30 * time.Second, "wait=30"},
		"wait=4294967296":            {30 * time.Second, "wait=30"},
		"wait=99999999999999999999x": {7 * time.Second, ""},
		"wait=4294967296abc":         {7 * time.Second, ""},
		`wait="5`:                    {7 * time.Second, ""},
		`wait="5;x"`:                 {7 * time.Second, ""},
		"wait=+5":                    {7 * time.Second, ""},
		"wait='5'":                   {7 * time.Second, ""},
		"wait=":                      {7 * time.Second, ""},
		"wait=4; foo=bar":            {4 * time.Second, "wait=4"},
		"foo=5; wait=4, wait=2;a":    {2 * time.Second, "wait=2"},
	} {
		c, w := requestWith(http.MethodPost, "", "Prefer", prefer)
		if got := waitOf(c, 7*time.Second); got != want.wait || w.Header().Get("Preference-Applied") != want.applied {
			t.Errorf("Prefer: %s -> %v, applied %q", prefer, got, w.Header().Get("Preference-Applied"))
		}
	}
}

func TestIfMatch(t *testing.T) {
	for header, want := range map[string]*models.IfMatch{
		`"3"`:        {Versions: []int64{3}},
		`"3", "4"`:   {Versions: []int64{3, 4}},
		`*`:          {Any: true},
		`W/"3"`:      {},
		`3`:          {},
		`"03"`:       {},
		`""`:         {},
		`"x", "5"`:   {Versions: []int64{5}},
		`"-1" , "x"`: {Versions: []int64{-1}},
	} {
		c, _ := requestWith(http.MethodPut, "", "If-Match", header)
		if got := ifMatch(c); !reflect.DeepEqual(got, want) {
			t.Errorf("If-Match: %s -> %+v, want %+v", header, got, want)
		}
	}
	c, _ := requestWith(http.MethodPut, "")
	if got := ifMatch(c); got != nil {
		t.Errorf("no If-Match -> %+v", got)
	}
	for header, want := range map[string]bool{`"3"`: true, `W/"3"`: true, `*`: true, `"4", "3"`: true, `"4"`: false, `3`: false, ``: false} {
		c, _ := requestWith(http.MethodGet, "", "If-None-Match", header)
		if got := noneMatch(c, 3); got != want {
			t.Errorf("If-None-Match: %s -> %v", header, got)
		}
	}
}

func TestQuery(t *testing.T) {
	for raw, field := range map[string]string{
		"limit=1&q=x": "", "": "", "limti=1": "limti", "q=1&q=2": "q", "q=%ff": "q", "q=%00": "q", "q=%zz": "query", "a;b": "query",
	} {
		c, _ := requestWith(http.MethodGet, "")
		c.Request.URL.RawQuery = raw
		_, err := query(c, "limit", "q")
		var invalid *models.ValidationError
		if (err == nil) != (field == "") || (err != nil && (!errors.As(err, &invalid) || invalid.Errors[0].Field != field)) {
			t.Errorf("?%s: %v, want field %q", raw, err, field)
		}
	}
	for limit, ok := range map[string]bool{"1": true, "200": true, "0": false, "201": false, "-1": false, "x": false, "": false, "1.0": false, "+1": false} {
		if _, err := page(map[string]string{"limit": limit}); (err == nil) != ok {
			t.Errorf("limit %q: %v", limit, err)
		}
	}
}
