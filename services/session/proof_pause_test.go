package session_test

import (
	"slices"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// TestPauseProof: a process is stopped for so long that the log of what
// ended meanwhile has been cleaned up. When it goes on, with calls waiting for it,
// it has dropped every copy: it accepts no ended session, not even once, and reads
// the row of a live session.
func TestPauseProof(t *testing.T) {
	for name, after := range map[string]int{"log is empty": 0, "log begins later": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rounds := 1
			if servicestest.LongProof() {
				rounds = inFull(100)
			}
			p := &pauseProof{t: t, world: newWorld(t)}
			with := proofInstance{Database: p.path, Redis: p.server.Addr}
			p.at, p.paused = startRemote(t, with), startRemote(t, with)
			for left := newCountdown(t, rounds); left.next(); {
				p.prove(after)
			}
		})
	}
}

type pauseProof struct {
	*world
	t          *testing.T
	at, paused *remote
}

func (p *pauseProof) prove(after int) {
	t := p.t
	var ids, tokens []string
	for range 6 {
		c := p.signUp(t)
		reply := p.at.call(proofCall{Op: "sign in", Email: c.Email})
		ids, tokens = append(ids, c.ID), append(tokens, reply.Token)
		servicestest.Eventually(t, func() bool {
			p.paused.call(proofCall{Op: "read", Token: reply.Token})
			return p.paused.call(proofCall{Op: "warm", Token: reply.Token}).Result == "ok"
		}, "no copy")
	}
	p.paused.Freeze()
	for _, call := range []proofCall{
		{Op: "end", Token: tokens[0]},
		{Op: "end all", User: ids[1]},
		{Op: "password", Token: tokens[2]},
		{Op: "role", User: ids[3], Role: models.RoleViewer},
	} {
		if reply := p.at.call(call); reply.Result != "ok" {
			t.Fatalf("%s: %s", call.Op, reply.Result)
		}
	}
	acknowledged := time.Now()
	ended, changed, valid, unread := tokens[:3], tokens[3], tokens[4], tokens[5]

	p.forgetTheLog(t)
	for range after {
		if err := p.store.NoteChange(t.Context(), "another session"); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Until(acknowledged.Add(promised))) // from here on none may be accepted

	type answer struct {
		token string
		proofReply
	}
	answers := make(chan answer)
	asked := slices.Concat(ended, []string{changed, valid}, ended, []string{changed, valid})
	for _, token := range asked {
		go func() { answers <- answer{token, p.paused.call(proofCall{Op: "read", Token: token})} }()
	}
	p.paused.Thaw()
	for range asked {
		a := <-answers
		want := "ok"
		if slices.Contains(ended, a.token) {
			want = "none"
		}
		if a.Result != want || (a.token == changed && a.Role != models.RoleViewer) {
			t.Errorf("session %d: %q with role %q, want %s", slices.Index(tokens, a.token), a.Result, a.Role, want)
		}
	}
	servicestest.Eventually(t, func() bool {
		p.paused.call(proofCall{Op: "read", Token: valid})
		return p.paused.call(proofCall{Op: "warm", Token: valid}).Result == "ok"
	}, "no copy counts any more")
	if p.paused.call(proofCall{Op: "warm", Token: unread}).Result != "none" {
		t.Error("a copy from before the pause counts")
	}
	if reply := p.paused.call(proofCall{Op: "read", Token: unread}); reply.Result != "ok" {
		t.Errorf("a valid session after the pause: %s", reply.Result)
	}
}
