package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// httpClient is one connection of a user who edits a process of their own. What net/http has for
// clients would take as much of the processors as the servers do, and more for each header.
type httpClient struct {
	s       *subject
	conn    net.Conn
	answers *bufio.Reader
	header  string
	path    string // of its process
	// what the client last sent and received
	request, received []byte
}

func (s *subject) connect(t *testing.T) *httpClient {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	return &httpClient{s: s, conn: conn, answers: bufio.NewReader(conn)}
}

// client connects the i-th client, one of the users, and creates its process.
func (s *subject) client(t *testing.T, i int) *httpClient {
	t.Helper()
	c := s.connect(t)
	c.header = s.signedIn[i%len(s.signedIn)]
	body, err := c.want(http.StatusCreated, "POST", "/processes", "", text)
	if err != nil {
		t.Fatalf("%s: create a process: %v", s.name, err)
	}
	c.path = "/processes/" + field(body, "id")
	return c
}

var text = `{"title":"Order paper","status":"draft","description":"` + strings.Repeat("Ask both suppliers. ", 10) + `"}`

// field is a text of a JSON object.
func field(body []byte, name string) string {
	_, rest, _ := bytes.Cut(body, []byte(`"`+name+`":"`))
	value, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(value)
}

func (c *httpClient) send(method, path, header, body string) (answer, error) {
	c.request = fmt.Appendf(c.request[:0], "%s %s%s HTTP/1.1\r\nHost: %s\r\n%s%s", method, c.s.api, path, c.s.addr, c.header, header)
	if method != "GET" {
		c.request = fmt.Appendf(c.request, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	c.request = append(append(c.request, "\r\n"...), body...)
	if _, err := c.conn.Write(c.request); err != nil {
		return answer{}, err
	}
	return c.receive()
}

// answer is one to a request. What it has is there until the next request of its client.
type answer struct {
	status     int
	head, body []byte
}

// receive reads an answer that says how long it is, as all of these do.
func (c *httpClient) receive() (a answer, err error) {
	length := -1
	c.received = c.received[:0]
	for {
		line, err := c.answers.ReadSlice('\n')
		if err != nil {
			return a, err
		}
		if len(line) <= len("\r\n") {
			break
		}
		c.received = append(c.received, line...)
		name, value, found := bytes.Cut(line, []byte(":"))
		switch {
		case a.status == 0:
			_, status, _ := bytes.Cut(line, []byte(" "))
			a.status, err = strconv.Atoi(string(status[:min(3, len(status))]))
		case found && bytes.EqualFold(name, []byte("Content-Length")):
			length, err = strconv.Atoi(string(bytes.TrimSpace(value)))
		}
		if err != nil {
			return a, err
		}
	}
	if a.status == http.StatusNoContent {
		length = 0
	}
	if length < 0 {
		return a, fmt.Errorf("an answer without a length:\n%s", c.received)
	}
	head := len(c.received)
	c.received = slices.Grow(c.received, length)[:head+length]
	a.head, a.body = c.received[:head], c.received[head:]
	_, err = io.ReadFull(c.answers, a.body)
	return a, err
}

// want is send for an answer that must have this status.
func (c *httpClient) want(status int, method, path, header, body string) ([]byte, error) {
	got, err := c.send(method, path, header, body)
	if err == nil && got.status != status {
		err = fmt.Errorf("%s %s: %d %s", method, path, got.status, got.body)
	}
	return got.body, err
}

// edit is a whole one: lock, write, unlock.
func (c *httpClient) edit() error {
	answer, err := c.want(http.StatusCreated, "POST", c.path+"/lock", "", "")
	if err != nil {
		return err
	}
	token := "X-Lock-Token: " + field(answer, "lockToken") + "\r\n"
	if _, err := c.want(http.StatusOK, "PUT", c.path, token, text); err != nil {
		return err
	}
	_, err = c.want(http.StatusNoContent, "DELETE", c.path+"/lock", token, "")
	return err
}

func (c *httpClient) readProcess() error {
	_, err := c.want(http.StatusOK, "GET", c.path, "", "")
	return err
}

func (c *httpClient) readSession() error {
	_, err := c.want(http.StatusOK, "GET", c.s.session, "", "")
	return err
}
