package redis

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var luaCommands = regexp.MustCompile(`call\(['"]([A-Za-z]+)['"]`)

// healthRun plays what happens to a node, at the pace of the probes.
type healthRun struct {
	health
	now     time.Time
	changes []string // that are logged
}

func newHealthRun() *healthRun {
	r := &healthRun{now: time.Unix(1_000_000, 0)}
	r.health = health{timeout: 100 * time.Millisecond, shut: true, failures: suspectFailures - 1, why: cause{state: NodeStarting}}
	return r
}

func (r *healthRun) record(changed bool) {
	if changed {
		r.changes = append(r.changes, fmt.Sprintf("%s/%v", r.why.state, r.up))
	}
}

// probe is one probe that is answered after took milliseconds, or fails.
func (r *healthRun) probe(took int, failed NodeState) {
	d := time.Duration(took) * time.Millisecond
	for waited := r.timeout * 3 / 2; waited <= d; waited += r.timeout * 3 / 2 {
		r.probeLate()
	}
	r.now = r.now.Add(max(d, probeInterval))
	if failed != "" {
		r.record(r.unanswered(r.now, cause{state: failed}))
		return
	}
	returns, changed := r.answered(r.now, d, cause{})
	if returns {
		changed = r.returned(r.now, cause{}) || changed
	}
	r.record(changed)
}

func TestHealth(t *testing.T) {
	quick, gone, frozen := func(r *healthRun) { r.probe(1, "") }, func(r *healthRun) { r.probe(1, NodeGone) }, func(r *healthRun) { r.probe(400, NodeTimeout) }
	answers := func(took int) func(*healthRun) { return func(r *healthRun) { r.probe(took, "") } }
	fails := func(state NodeState) func(*healthRun) { return func(r *healthRun) { r.probe(1, state) } }
	replied := func(r *healthRun) { r.succeeded() }
	timedOut, refused := func(r *healthRun) { r.failed(true) }, func(r *healthRun) { r.failed(false) }
	waits := func(r *healthRun) { r.probeLate() }
	times := func(n int, step func(*healthRun)) func(*healthRun) {
		return func(r *healthRun) {
			for range n {
				step(r)
			}
		}
	}
	shut := func(want bool) func(*healthRun) {
		return func(r *healthRun) {
			if r.shut != want {
				r.changes = append(r.changes, fmt.Sprintf("shut %v, want %v", r.shut, want))
			}
		}
	}
	for name, row := range map[string]struct {
		steps []func(*healthRun)
		want  string
	}{
		"starts":                       {[]func(*healthRun){quick, shut(false)}, "ok/true"},
		"starts late":                  {[]func(*healthRun){answers(150), shut(true), quick}, "ok/true"},
		"never there":                  {[]func(*healthRun){gone, gone, gone, gone, gone}, "gone/false"},
		"one failed probe":             {[]func(*healthRun){quick, gone, shut(false), quick}, "ok/true"},
		"gone and back":                {[]func(*healthRun){quick, times(3, gone), shut(true), quick, shut(false)}, "ok/true gone/false ok/true"},
		"calls that fail":              {[]func(*healthRun){quick, refused, refused, shut(false), refused, shut(true), quick, shut(false)}, "ok/true"},
		"calls that are answered":      {[]func(*healthRun){quick, times(3, gone), replied, shut(true), times(3, gone), quick}, "ok/true gone/false ok/true"},
		"answered after some failed":   {[]func(*healthRun){quick, times(3, refused), replied, shut(true), quick, shut(false)}, "ok/true"},
		"calls that fail and a probe":  {[]func(*healthRun){quick, refused, refused, gone, shut(true), gone}, "ok/true gone/false"},
		"calls that are late":          {[]func(*healthRun){quick, times(100, timedOut), shut(false), quick}, "ok/true"},
		"late calls and a late probe":  {[]func(*healthRun){quick, times(3, timedOut), waits, shut(true), answers(150), shut(true), quick, shut(false)}, "ok/true"},
		"frozen":                       {[]func(*healthRun){quick, frozen, shut(true), frozen, frozen, quick}, "ok/true timeout/false ok/true"},
		"late at thaw":                 {[]func(*healthRun){quick, frozen, answers(300), shut(true), quick}, "ok/true timeout/false ok/true"},
		"now and then late":            {[]func(*healthRun){quick, times(20, both(times(7, answers(150)), quick))}, "ok/true"},
		"always near":                  {[]func(*healthRun){quick, times(200, answers(88)), shut(false)}, "ok/true slow/true"},
		"near and late":                {[]func(*healthRun){quick, times(40, both(times(7, answers(120)), answers(88))), shut(false)}, "ok/true slow/true"},
		"near, then quick":             {[]func(*healthRun){quick, times(20, answers(88)), times(40, quick)}, "ok/true slow/true ok/true"},
		"always late":                  {[]func(*healthRun){quick, times(200, answers(150)), shut(true)}, "ok/true slow/false"},
		"late, then a few quick":       {[]func(*healthRun){quick, times(20, answers(150)), times(10, both(times(15, quick), answers(150))), shut(true)}, "ok/true slow/false"},
		"late, then quick":             {[]func(*healthRun){quick, times(20, answers(150)), times(30, quick), shut(false)}, "ok/true slow/false ok/true"},
		"too slow, then gone":          {[]func(*healthRun){quick, times(20, answers(150)), times(5, gone), quick}, "ok/true slow/false gone/false ok/true"},
		"no permission: at once":       {[]func(*healthRun){quick, fails(NodePermission), shut(true), times(20, fails(NodePermission)), quick}, "ok/true permission/false ok/true"},
		"another cause, if it lasts":   {[]func(*healthRun){quick, times(3, gone), fails(NodeNotNow), gone, times(4, fails(NodeNotNow)), quick}, "ok/true gone/false not-now/false ok/true"},
		"another cause at every probe": {[]func(*healthRun){quick, times(3, gone), times(20, both(fails(NodeNotNow), fails(NodeTimeout)))}, "ok/true gone/false"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newHealthRun()
			for _, step := range row.steps {
				step(r)
			}
			if got := strings.Join(r.changes, " "); got != row.want {
				t.Errorf("told %q, want %q", got, row.want)
			}
		})
	}
}

func both(a, b func(*healthRun)) func(*healthRun) { return func(r *healthRun) { a(r); b(r) } }

// Whatever the round trips are, what is logged about slowness is at least 5 s apart.
func TestHealthChangesForSlownessAreApart(t *testing.T) {
	changes := 0
	for period := 1; period < 60; period++ {
		for _, slow := range []int{71, 88, 101, 150, 399} {
			r := newHealthRun()
			r.probe(1, "")
			var last time.Time
			for i := range 2000 {
				before := len(r.changes)
				took := 1
				if i/period%2 == 0 {
					took = slow
				}
				r.probe(took, "")
				if len(r.changes) == before {
					continue
				}
				if r.now.Sub(last) < settleTime {
					t.Fatalf("%d ms for every %d probes: two changes within %v: %v", slow, period, r.now.Sub(last), r.changes)
				}
				last = r.now
				changes++
			}
		}
	}
	if changes < 1000 {
		t.Errorf("only %d changes", changes)
	}
}

// The probe tries every command that a script uses: a script that uses another one
// must not find a Redis without it healthy.
func TestProbeTriesEveryCommandOfTheScripts(t *testing.T) {
	used := map[string]string{}
	// Only the folders of scripts are opened: go test runs this package again when they change.
	for _, folder := range []string{"lua", "../lock/lua", "../ratelimit/lua", "../session/lua"} {
		scripts, err := filepath.Glob(folder + "/*.lua")
		if err != nil || len(scripts) == 0 {
			t.Fatalf("no script in %s: %v", folder, err)
		}
		for _, name := range scripts {
			script, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, command := range luaCommands.FindAllStringSubmatch(string(script), -1) {
				used[command[1]] = name
			}
		}
	}
	if len(used) < 15 {
		t.Fatalf("the scripts use %v: is the pattern out of date?", used)
	}
	for command, file := range used {
		if !strings.Contains(probeScript, "try('"+command+"'") {
			t.Errorf("%s uses %s, which the probe does not try", file, command)
		}
	}
}

func TestCauses(t *testing.T) {
	for _, row := range []struct {
		err    error
		state  NodeState
		reason string
	}{
		{&lackError{"ZADD", "ERR The user executing the script can't run this command or subcommand script: 1, on @user_script:1."}, NodePermission, "+zadd"},
		{&lackError{"HSET", "ERR ACL failure in script: User app has no permissions to run the 'hset' command"}, NodePermission, "+hset"},
		{&lackError{"SET", "ERR Unknown Redis command called from script script: 1"}, NodeIncapable, "no command SET"},
		{&lackError{"SET", "OOM command not allowed when used memory > 'maxmemory'."}, NodeNotNow, "memory"},
		{&lackError{"GET", "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments"}, NodePermission, "REDIS_KEY_PREFIX"},
		{fmt.Errorf("probe: %w", io.EOF), NodeGone, "TLS"},
		{errors.New("remote error: tls: bad certificate"), NodeTLS, "TLS"},
	} {
		got := causeOf(row.err, time.Second, time.Second)
		if got.state != row.state || !strings.Contains(got.reason, row.reason) {
			t.Errorf("%v: %s, %q; want %s, %q", row.err, got.state, got.reason, row.state, row.reason)
		}
	}
}
