package lock

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// operation is one of a history.
type operation struct {
	// acquire, wait (in the queue), replace, extend, check, release, force, told (of a refused replace),
	// or end: what may happen by itself
	Kind  string
	Grant int  // the acquire meant
	Busy  bool // a caller waited meanwhile: Redis may have offered the lock to a waiter that did not take it
}

type lockAnswer struct {
	Result string // ok, refused, unknown
	Fence  int64
}

type lockState struct {
	holder int // the acquire that has the lock, 0 when free
	fence  int64
	unsure bool   // fence is that of the one before: the holder was not answered
	asked  string // the replaces that will be refused, and whose callers were not told yet
}

// lockModel is a lock as its clients may see it. What was answered "unavailable"
// may have been done or not; a lease may end by itself once its time has passed.
func lockModel() porcupine.Model {
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{lockState{}} },
		Step: func(from, input, output any) []any {
			var next []any
			for _, state := range stepLock(from.(lockState), input.(operation), output.(lockAnswer)) {
				next = append(next, state)
			}
			return next
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%v -> %v", input, output) },
	}
	return model.ToModel()
}

func stepLock(s lockState, op operation, got lockAnswer) []lockState {
	free := lockState{fence: s.fence, asked: s.asked}
	mine := s.holder == op.Grant
	switch op.Kind {
	case "told":
		return stepTold(s, op)
	case "end":
		if mine {
			return []lockState{free}
		}
		return []lockState{s}
	case "acquire", "wait":
		return stepAcquire(s, op, got)
	case "replace":
		return stepReplace(s, op, got)
	case "force":
		return stepForce(s, op, got)
	}
	switch {
	case got.Result == "unknown" && mine && op.Kind == "release":
		return []lockState{s, free}
	case got.Result == "unknown":
		return []lockState{s}
	case got.Result == "refused" && mine && op.Kind == "release": // sent again on another connection, it found that it was done
		return []lockState{free}
	case (got.Result == "ok") != mine:
		return nil
	case op.Kind == "release" && mine:
		return []lockState{free}
	}
	return []lockState{s}
}

func stepAcquire(s lockState, op operation, got lockAnswer) []lockState {
	switch {
	case got.Result == "refused" && (s.holder != 0 || op.Busy):
		return []lockState{s}
	case got.Result == "ok" && s.holder == 0 && got.Fence > s.fence:
		return []lockState{{holder: op.Grant, fence: got.Fence, asked: s.asked}}
	case got.Result == "unknown" && s.holder == 0:
		return []lockState{s, {holder: op.Grant, fence: s.fence, unsure: true, asked: s.asked}}
	case got.Result == "unknown":
		return []lockState{s}
	}
	return nil
}

// stepReplace passes the lock from one holder to another. What was seen of it may be over by then: it
// can always be refused. It may even be refused after it was done, if what it got was over before
// its caller was told: it is sent again then.
func stepReplace(s lockState, op operation, got lockAnswer) []lockState {
	held := s.holder != 0 || op.Busy // or offered, and not taken
	done := lockState{holder: op.Grant, fence: s.fence, unsure: true, asked: s.asked}
	switch {
	case got.Result == "refused":
		s.asked += mark(op.Grant)
		done.asked = s.asked
		if held {
			return []lockState{s, done}
		}
		return []lockState{s}
	case got.Result == "ok" && held && got.Fence > s.fence:
		return []lockState{{holder: op.Grant, fence: got.Fence, asked: s.asked}}
	case got.Result == "unknown" && held:
		return []lockState{s, done}
	case got.Result == "unknown":
		return []lockState{s}
	}
	return nil
}

// stepTold tells the caller of a replace that it was refused: it does not have the lock then.
func stepTold(s lockState, op operation) []lockState {
	before, after, asked := strings.Cut(s.asked, mark(op.Grant))
	if !asked || s.holder == op.Grant {
		return nil
	}
	s.asked = before + after
	return []lockState{s}
}

func mark(grant int) string { return fmt.Sprintf("<%d>", grant) }

// withTold adds to each replace that was refused that its caller was told, in the same time.
func withTold(ops []porcupine.Operation) []porcupine.Operation {
	all := slices.Clone(ops)
	for _, op := range ops {
		if in := op.Input.(operation); in.Kind == "replace" && op.Output.(lockAnswer).Result == "refused" {
			op.Input = operation{Kind: "told", Grant: in.Grant}
			all = append(all, op)
		}
	}
	return all
}

// stepForce ends the lock, whoever its holder is, and returns its fence.
func stepForce(s lockState, op operation, got lockAnswer) []lockState {
	free := lockState{fence: max(s.fence, got.Fence), asked: s.asked}
	switch {
	case got.Result == "unknown":
		return []lockState{s, {fence: s.fence, asked: s.asked}}
	case got.Result == "refused" && s.holder == 0:
		return []lockState{s}
	case got.Result == "ok" && s.holder != 0 && (got.Fence == s.fence || (s.unsure && got.Fence > s.fence)):
		return []lockState{free}
	case got.Result == "ok" && s.holder == 0 && op.Busy && got.Fence > s.fence: // offered, and not taken
		return []lockState{free}
	}
	return nil
}

// wantLockHistory wants a linearization of what happened to one lock. It reports
// false if none was found in time and none was ruled out either.
func wantLockHistory(t *testing.T, resource string, ops []porcupine.Operation) (decided bool) {
	t.Helper()
	ops = withTold(ops)
	result, info := porcupine.CheckOperationsVerbose(lockModel(), ops, 20*time.Second)
	switch result {
	case porcupine.Illegal:
		t.Errorf("the history of %s is not that of a lock:", resource)
		placed := map[int]bool{}
		for _, parts := range info.PartialLinearizations() {
			for _, i := range slices.MaxFunc(parts, func(a, b []int) int { return len(a) - len(b) }) {
				placed[i] = true
			}
		}
		for i, op := range ops {
			mark := "  "
			if !placed[i] { // by the longest attempt to explain it all
				mark = "? "
			}
			t.Logf("%s%v .. %v %v -> %v", mark, time.Duration(op.Call), time.Duration(op.Return), op.Input, op.Output)
		}
	case porcupine.Unknown:
		t.Logf("no answer about the history of %s, of %d operations", resource, len(ops))
	}
	return result != porcupine.Unknown
}

// TestProofModelRefuses: the model would find what it is there for.
func TestProofModelRefuses(t *testing.T) {
	type row struct {
		op             operation
		call, returned int64
		got            lockAnswer
	}
	ok := func(kind string, grant int, at, fence int64) row {
		return row{operation{Kind: kind, Grant: grant}, at, at + 1, lockAnswer{"ok", fence}}
	}
	refused := func(kind string, grant int, at int64) row {
		return row{operation{Kind: kind, Grant: grant}, at, at + 1, lockAnswer{Result: "refused"}}
	}
	again := row{operation{Kind: "replace", Grant: 2}, 2, 9, lockAnswer{Result: "refused"}} // its first reply was lost
	end := row{operation{Kind: "end", Grant: 1}, 100, math.MaxInt64, lockAnswer{}}
	for name, c := range map[string]struct {
		rows  []row
		legal bool
	}{
		"one after the other":             {[]row{ok("acquire", 1, 0, 5), refused("acquire", 2, 2), ok("release", 1, 4, 0), ok("wait", 2, 6, 6)}, true},
		"two holders":                     {[]row{ok("acquire", 1, 0, 5), ok("acquire", 2, 2, 6)}, false},
		"a waiter beside the holder":      {[]row{ok("acquire", 1, 0, 5), ok("wait", 2, 2, 6), ok("release", 1, 4, 0)}, false},
		"a fence that does not grow":      {[]row{ok("acquire", 1, 0, 5), ok("release", 1, 2, 0), ok("wait", 2, 4, 5)}, false},
		"refused a free lock":             {[]row{refused("acquire", 1, 0)}, false},
		"granted before the lease ended":  {[]row{ok("acquire", 1, 0, 5), ok("acquire", 2, 50, 6), end}, false},
		"granted after the lease ended":   {[]row{ok("acquire", 1, 0, 5), ok("acquire", 2, 120, 6), end}, true},
		"forced, then the next":           {[]row{ok("acquire", 1, 0, 5), ok("force", 0, 2, 5), refused("check", 1, 4), ok("acquire", 2, 6, 6)}, true},
		"forced, and still there":         {[]row{ok("acquire", 1, 0, 5), ok("force", 0, 2, 5), ok("check", 1, 4, 0)}, false},
		"replaced, then the next":         {[]row{ok("acquire", 1, 0, 5), ok("replace", 2, 2, 6), refused("check", 1, 4), ok("release", 2, 6, 0), ok("acquire", 3, 8, 7)}, true},
		"replaced, and still there":       {[]row{ok("acquire", 1, 0, 5), ok("replace", 2, 2, 6), ok("check", 1, 4, 0)}, false},
		"replaced by two":                 {[]row{ok("acquire", 1, 0, 5), ok("replace", 2, 2, 6), ok("replace", 3, 4, 7), ok("check", 2, 6, 0)}, false},
		"replaced, forced and sent again": {[]row{ok("acquire", 1, 0, 5), again, ok("force", 0, 4, 6), ok("acquire", 3, 12, 7)}, true},
		"replaced, seen and replaced":     {[]row{ok("acquire", 1, 0, 5), again, refused("release", 1, 3), refused("acquire", 3, 5), ok("replace", 3, 7, 7), ok("check", 3, 12, 0)}, true},
		"replaced, seen and not replaced": {[]row{ok("acquire", 1, 0, 5), again, refused("release", 1, 3), refused("acquire", 3, 5), ok("replace", 3, 12, 7)}, false},
		"refused, and replaced":           {[]row{ok("acquire", 1, 0, 5), again, refused("check", 1, 12)}, false},
		"replaced at the same fence":      {[]row{ok("acquire", 1, 0, 5), ok("replace", 2, 2, 5)}, false},
		"replaced what is free":           {[]row{ok("replace", 2, 2, 5)}, false},
		"forced another":                  {[]row{ok("acquire", 1, 0, 5), ok("force", 0, 2, 4)}, false},
		"forced what is free":             {[]row{ok("force", 0, 2, 4)}, false},
		"found free what is held":         {[]row{ok("acquire", 1, 0, 5), refused("force", 0, 2), ok("check", 1, 4, 0)}, false},
		"refused, and still there":        {[]row{ok("acquire", 1, 0, 5), refused("release", 1, 2), ok("check", 1, 4, 0)}, false},
		"released, and checked for right": {[]row{ok("acquire", 1, 0, 5), ok("release", 1, 2, 0), ok("check", 1, 4, 0)}, false},
	} {
		var ops []porcupine.Operation
		for i, r := range c.rows {
			ops = append(ops, porcupine.Operation{ClientId: i, Input: r.op, Call: r.call, Output: r.got, Return: r.returned})
		}
		if got := porcupine.CheckOperations(lockModel(), withTold(ops)); got != c.legal {
			t.Errorf("%s: legal %v", name, got)
		}
	}
}
