package e2e

import (
	"testing"

	"gatehouse/services/servicestest"
)

// TestJourneyEditing is what an editor has beside the lock and the text, as a client of the API:
// drafts, the history and older versions, why a save was refused, and asking for a lock.
func TestJourneyEditing(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) *app{
		"embedded": func(t *testing.T) *app { return start(t) },
		"Redis gone": func(t *testing.T) *app {
			return startWithoutRedis(t, "REDIS_URL=redis://"+servicestest.FreeAddr(t), redisTimeout)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			journeyOfEditing(t, start(t))
		})
	}
}

func journeyOfEditing(t *testing.T, a *app) {
	alice, bob := a.signIn(t, "alice@example.com"), a.signIn(t, "bob@example.com")
	process := alice.call(t, "POST /processes", fields("Dig a well")).is(t, 201).text(t, "id")
	path, locked := "/processes/"+process, map[string]any{"reason": "digging"}
	token := alice.call(t, "POST "+path+"/lock", locked).is(t, 201).text(t, "lockToken")

	draft := fields("Dig two wells")
	draft["baseVersion"] = 1
	alice.call(t, "GET "+path+"/draft", nil).problem(t, 404, "not-found")
	alice.call(t, "PUT "+path+"/draft", draft).is(t, 200).with(t, "title", "Dig two wells")
	alice.call(t, "GET "+path+"/draft", nil).is(t, 200).with(t, "baseVersion", 1)
	bob.call(t, "GET "+path, nil).is(t, 200).with(t, "drafts.0.email", "alice@example.com")

	alice.call(t, "PUT "+path, fields("Dig two wells"), "X-Lock-Token: "+token).is(t, 200).with(t, "version", 2)
	alice.call(t, "DELETE "+path+"/draft", nil).is(t, 204)
	alice.call(t, "GET "+path+"/versions/1", nil).is(t, 200).with(t, "title", "Dig a well")
	alice.call(t, "POST "+path+"/restore", map[string]any{"version": 1}, "X-Lock-Token: "+token).is(t, 200).with(t, "title", "Dig a well").with(t, "version", 3)
	alice.call(t, "GET "+path+"/history", nil).is(t, 200).with(t, "items.0.how", "restored")

	asked := bob.call(t, "POST "+path+"/lock/requests", map[string]any{"message": "my turn?"}).is(t, 201).with(t, "state", "open").text(t, "id")
	alice.call(t, "POST "+path+"/lock/requests/"+asked+"/answer", map[string]any{"answer": "no"}, "X-Lock-Token: "+token).is(t, 200).with(t, "state", "no")
	bob.call(t, "GET "+path+"/lock/requests/"+asked, nil).is(t, 200).with(t, "state", "no")
	again := bob.call(t, "POST "+path+"/lock/requests", nil).is(t, 201).text(t, "id")
	bob.call(t, "DELETE "+path+"/lock/requests/"+again, nil).is(t, 204)

	alice.call(t, "DELETE "+path+"/lock", nil, "X-Lock-Token: "+token).is(t, 204)
	refused := alice.call(t, "PUT "+path, fields("Too late"), "X-Lock-Token: "+token).problem(t, 409, "lock-not-held").with(t, "endedBy.how", "released")
	alice.call(t, "GET /refusals/"+refused.Header.Get("X-Request-Id"), nil).is(t, 200).with(t, "type", "/problems/lock-not-held").with(t, "resource", "process:"+process)
}
