package proof

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// counter is a process whose description is a number that editors count up.
type counter struct {
	id                       string
	acknowledged, unanswered atomic.Int64
}

// process is as the API answers it.
type process struct {
	ID          string `json:"id"`
	Title       string `json:"title"`
	Status      string `json:"status"`
	Description string `json:"description"`
	Version     int64  `json:"version"`
}

// editor edits counters at any of the instances.
type editor struct {
	instances []*instance
	counters  []*counter
	http      *http.Client
	token     string
	random    *rand.Rand
	signedOut *atomic.Int64 // counts the answers that a signed-in user should not get
}

// send asks any instance; status 0 means that no answer came.
func (e *editor) send(ctx context.Context, method, path string, body, into any, headers ...string) (status int) {
	var doc bytes.Buffer
	if body != nil {
		_ = json.NewEncoder(&doc).Encode(body) // maps of strings
	}
	at := e.instances[e.random.IntN(len(e.instances))]
	req, err := http.NewRequestWithContext(ctx, method, at.URL+"/api/v1"+path, &doc)
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	if e.token != "" {
		req.Header.Set("Authorization", "Bearer "+e.token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := e.http.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusUnauthorized && e.signedOut != nil {
		e.signedOut.Add(1)
	}
	if into != nil && json.NewDecoder(res.Body).Decode(into) != nil {
		return 0
	}
	return res.StatusCode
}

// edit counts up until ctx ends.
func (e *editor) edit(ctx context.Context) {
	for ctx.Err() == nil {
		c := e.counters[e.random.IntN(len(e.counters))]
		// A request under way is always finished, so that its answer counts.
		if e.random.IntN(2) == 0 {
			e.lockReadWrite(context.WithoutCancel(ctx), c)
		} else {
			e.readLockWrite(context.WithoutCancel(ctx), c)
		}
		select {
		case <-time.After(time.Duration(e.random.IntN(20)) * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

type granted struct {
	LockToken string  `json:"lockToken"`
	Process   process `json:"process"`
}

// lockReadWrite counts from the process that the lock's answer carries.
func (e *editor) lockReadWrite(ctx context.Context, c *counter) {
	var lock granted
	if e.send(ctx, "POST", "/processes/"+c.id+"/lock", map[string]any{"ttl": 1 + e.random.IntN(2)}, &lock, "Prefer", "wait=1") != http.StatusCreated {
		return
	}
	e.write(ctx, c, lock.Process, lock.LockToken)
}

// readLockWrite counts from what was read before the lock, and says so.
func (e *editor) readLockWrite(ctx context.Context, c *counter) {
	var read process
	if e.send(ctx, "GET", "/processes/"+c.id, nil, &read) != http.StatusOK {
		return
	}
	match := fmt.Sprintf("%q", strconv.FormatInt(read.Version, 10))
	var lock granted
	if e.send(ctx, "POST", "/processes/"+c.id+"/lock", nil, &lock, "If-Match", match, "Prefer", "wait=1") != http.StatusCreated {
		return
	}
	e.write(ctx, c, read, lock.LockToken, "If-Match", match)
}

// write sends the next number and gives the lock back, mostly.
func (e *editor) write(ctx context.Context, c *counter, from process, token string, headers ...string) {
	if e.random.IntN(16) == 0 { // an editor who thinks; some leases end meanwhile
		time.Sleep(time.Duration(e.random.IntN(1500)) * time.Millisecond)
	}
	n, err := strconv.Atoi(from.Description)
	if err != nil {
		return
	}
	headers = append(headers, "X-Lock-Token", token)
	impatient, cancel := ctx, context.CancelFunc(func() {})
	if e.random.IntN(10) == 0 { // one who does not wait for the answer
		impatient, cancel = context.WithTimeout(ctx, time.Duration(e.random.IntN(20))*time.Millisecond)
	}
	defer cancel()
	status := e.send(impatient, "PUT", "/processes/"+c.id, map[string]string{
		"title": from.Title, "status": from.Status, "description": strconv.Itoa(n + 1),
	}, nil, headers...)
	switch {
	case status == http.StatusOK:
		c.acknowledged.Add(1)
	case status == 0 || status >= 500: // it may have been done
		c.unanswered.Add(1)
	}
	if e.random.IntN(20) > 0 { // some forget their lock
		e.send(ctx, "DELETE", "/processes/"+c.id+"/lock", nil, nil, "X-Lock-Token", token)
	}
}
