package session_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
	"gatehouse/services/store"
)

// proofVariable makes the test binary, run again, one instance of the proof.
const proofVariable = "GATEHOUSE_PROOF_SESSION"

// proofInstance says what an instance works with.
type proofInstance struct{ Database, Redis string }

// proofCall is one line to an instance, proofReply one from it.
type proofCall struct {
	ID                     int
	Op, Token, User, Email string
	Role                   string
}

type proofReply struct {
	ID     int
	Result string // "ok", "none", "stale", "unavailable" or what went wrong
	Token  string
	Role   string
}

// TestProofInstance is not a test: run again in a process of its own, it serves one instance of
// the proofs.
func TestProofInstance(t *testing.T) {
	text := os.Getenv(proofVariable)
	if text == "" {
		return
	}
	var with proofInstance
	if err := json.Unmarshal([]byte(text), &with); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), store.Options{URL: with.Database, Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.New(redis.Options{Client: rueidis.ClientOption{InitAddress: []string{with.Redis}}, KeyPrefix: "test:", Logger: redistest.Quiet()})
	cache, err := session.NewCache(rdb, db, session.Options{MaxPerUser: 1_000_000, Watch: db.WatchRevocations, Budget: db.WithinBudget, Secrets: []string{"the secret of the proof, all instances have it"}, Logger: redistest.Quiet()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	rdb.WaitReady(ctx)
	cancel()

	var out sync.Mutex
	reply := func(r proofReply) {
		line, _ := json.Marshal(r)
		out.Lock()
		defer out.Unlock()
		fmt.Printf("@%s\n", line)
	}
	reply(proofReply{Result: "ready"})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var call proofCall
		if err := json.Unmarshal(lines.Bytes(), &call); err != nil {
			t.Fatal(err)
		}
		go func() {
			r, err := serveProof(context.Background(), cache, db, call)
			r.ID, r.Result = call.ID, "ok"
			switch {
			case errors.Is(err, models.ErrNotFound):
				r.Result = "none"
			case errors.Is(err, models.ErrStale):
				r.Result = "stale"
			case errors.Is(err, models.ErrUnavailable):
				r.Result = "unavailable"
			case err != nil:
				r.Result = err.Error()
			}
			reply(r)
		}()
	}
}

func serveProof(ctx context.Context, cache *session.Cache, db *store.Store, call proofCall) (proofReply, error) {
	switch call.Op {
	case "sign in":
		who, err := db.Credentials(ctx, call.Email)
		if err != nil {
			return proofReply{}, err
		}
		token, _, err := cache.Create(ctx, of(who))
		return proofReply{Token: token}, err
	case "read":
		s, err := cache.Get(redis.WithBudget(ctx), call.Token)
		if err != nil {
			return proofReply{}, err
		}
		cache.Touch(*s)
		return proofReply{Role: s.Roles[0]}, nil
	case "warm":
		if !cache.Warm(call.Token) {
			return proofReply{}, models.ErrNotFound
		}
		return proofReply{}, nil
	case "end":
		return proofReply{}, cache.Delete(ctx, call.Token)
	case "end all":
		return proofReply{}, cache.DeleteUser(ctx, call.User)
	case "role":
		_, err := db.UpdateUser(ctx, call.User, models.UserPatch{Roles: []string{call.Role}})
		cache.Sync(ctx)
		return proofReply{}, err
	case "password":
		s, err := cache.Get(ctx, call.Token)
		if err != nil {
			return proofReply{}, err
		}
		who, err := db.CredentialsByID(ctx, s.User.ID)
		if err != nil {
			return proofReply{}, err
		}
		token, _, err := cache.Rotate(ctx, *s, who.Epoch, func(next models.Session) error {
			return db.ChangePassword(ctx, who.ID, who.Epoch, "another hash", next)
		})
		return proofReply{Token: token}, err
	}
	return proofReply{}, fmt.Errorf("unknown %q", call.Op)
}

// remote is an instance in a process of its own.
type remote struct {
	*servicestest.Process
	in io.Writer

	mu      sync.Mutex
	next    int
	waiting map[int]chan proofReply
}

func startRemote(t *testing.T, with proofInstance) *remote {
	t.Helper()
	text, err := json.Marshal(with)
	if err != nil {
		t.Fatal(err)
	}
	cmd := servicestest.Again("TestProofInstance", proofVariable+"="+string(text))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, stdout := io.Pipe()
	cmd.Stdout = stdout
	r := &remote{Process: servicestest.Start(t, cmd), in: in, waiting: map[int]chan proofReply{}}
	t.Cleanup(func() { _ = stdout.Close() })
	ready := make(chan struct{})
	go r.read(out, ready)
	select {
	case <-ready:
	case <-r.Ended():
		t.Fatal("an instance does not start")
	}
	return r
}

func (r *remote) read(out io.Reader, ready chan struct{}) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 || line[0] != '@' {
			continue
		}
		var reply proofReply
		if json.Unmarshal(line[1:], &reply) != nil {
			continue
		}
		if reply.Result == "ready" {
			close(ready)
			continue
		}
		r.mu.Lock()
		answer := r.waiting[reply.ID]
		delete(r.waiting, reply.ID)
		r.mu.Unlock()
		answer <- reply
	}
}

func (r *remote) call(call proofCall) proofReply {
	answer := make(chan proofReply, 1)
	r.mu.Lock()
	r.next++
	call.ID = r.next
	r.waiting[call.ID] = answer
	line, _ := json.Marshal(call)
	_, err := r.in.Write(append(line, '\n'))
	r.mu.Unlock()
	if err != nil {
		return proofReply{Result: err.Error()}
	}
	select {
	case reply := <-answer:
		return reply
	case <-time.After(60 * time.Second):
		return proofReply{Result: "no answer"}
	}
}
