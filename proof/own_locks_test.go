package proof

import (
	"context"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// TestProofOwnLocks: while Redis stalls now and then, editors who each have a process to themselves
// go on, partly without it. None of them is told that the lock is not theirs, or another's.
func TestProofOwnLocks(t *testing.T) {
	wanted, within := int64(100), 2*time.Minute
	if servicestest.LongProof() {
		wanted, within = 5000, 20*time.Minute
	}
	redis := servicestest.StartRedis(t)
	instances := []*instance{start(t, filepath.Join(t.TempDir(), "proof.db"), redis, 0)}
	client := &http.Client{Timeout: servicestest.Patience, Transport: &http.Transport{MaxIdleConnsPerHost: editors}}
	defer client.CloseIdleConnections()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	editorOf := func(i uint64) *editor {
		return &editor{instances: instances, http: client, random: rand.New(rand.NewPCG(seed, i))}
	}
	chief := editorOf(0)
	chief.token = signIn(t, chief)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var degraded atomic.Int64
	for i, own := range makeCounters(t, chief, editors) {
		e := editorOf(uint64(1 + i))
		e.token = chief.token
		wg.Go(func() {
			for ctx.Err() == nil && !t.Failed() {
				e.editOwn(t, own, &degraded)
			}
		})
	}
	for deadline := time.Now().Add(within); degraded.Load() < wanted && !t.Failed(); {
		if time.Now().After(deadline) {
			t.Fatalf("only %d of %d locks without Redis within %s", degraded.Load(), wanted, within)
		}
		time.Sleep(time.Duration(300+chief.random.IntN(400)) * time.Millisecond)
		redis.Freeze()
		time.Sleep(time.Duration(60+chief.random.IntN(200)) * time.Millisecond)
		redis.Thaw()
	}
	stop()
	wg.Wait()
}

// editOwn locks, saves and unlocks, and fails the test for an answer that says anything else than
// done, or not now. It counts the locks that were granted without Redis.
func (e *editor) editOwn(t *testing.T, own *counter, degraded *atomic.Int64) {
	var lock struct {
		granted
		Degraded bool `json:"degraded"`
	}
	done := func(want int, method, path string, body, into any, headers ...string) {
		for {
			switch status := e.send(context.Background(), method, path, body, into, headers...); status {
			case want:
				return
			case http.StatusServiceUnavailable:
			default:
				t.Errorf("%s %s: %d, want %d", method, path, status, want)
				return
			}
		}
	}
	path := "/processes/" + own.id
	done(http.StatusCreated, "POST", path+"/lock", nil, &lock)
	token := []string{"X-Lock-Token", lock.LockToken}
	done(http.StatusOK, "PUT", path, map[string]string{"title": "own", "status": "active", "description": "1"}, nil, token...)
	done(http.StatusNoContent, "DELETE", path+"/lock", nil, nil, token...)
	if lock.Degraded {
		degraded.Add(1)
	}
}
