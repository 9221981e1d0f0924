package lock

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
)

//go:embed lua/*.lua
var scriptFiles embed.FS

type scriptSet struct {
	acquire, release, extend, status, statuses, queue, force, replace, ended, metadata, heartbeat, list, held *rueidis.Lua
}

// loadScripts returns the scripts, with the values in place that are the same at every call.
func loadScripts(events, ends string, maxHold, grace time.Duration) scriptSet {
	constants := strings.NewReplacer(
		"ALIVE", milliseconds(waiterAlive), "CONFIRM", milliseconds(waiterConfirm), "LONGEST", milliseconds(maxHold),
		"GRACE", milliseconds(grace), "REMEMBER", milliseconds(models.KeepLockEnds), "EVENTS", strconv.Quote(events), "ENDS", strconv.Quote(ends),
	)
	common := constants.Replace(scriptText("common"))
	load := func(name string, before ...string) *rueidis.Lua {
		text := ""
		for _, part := range before {
			text += constants.Replace(scriptText(part))
		}
		return rueidis.NewLuaScript(text + common + constants.Replace(scriptText(name)))
	}
	return scriptSet{
		acquire: load("acquire", "acquire_shortcut"), release: load("release", "release_shortcut"),
		extend: load("extend"), status: load("status"), statuses: load("statuses"), queue: load("queue"), force: load("force"), replace: load("replace"),
		ended: load("ended"), metadata: load("metadata"),
		heartbeat: load("heartbeat"), list: load("list"), held: load("held"),
	}
}

// scriptText is the text of an embedded script.
func scriptText(name string) string {
	text, err := scriptFiles.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err) // the name is a constant of this package
	}
	return string(text)
}

// random128 is a text of 128 random bits: an id that never comes again.
func random128() string {
	var id [epochLength / 2]byte
	_, _ = rand.Read(id[:]) // never fails
	var text [epochLength]byte
	hex.Encode(text[:], id[:])
	return string(text[:])
}

// newGrantID is as long as random128 and never comes again, either. It begins with the time in
// milliseconds: an index of a database in which ids are kept then grows at its end.
func newGrantID() string {
	return fmt.Sprintf("%012x", time.Now().UnixMilli()) + random128()[:epochLength-12]
}

// run executes one of the scripts on the keys of a resource.
func (l *Locker) run(ctx context.Context, script *rueidis.Lua, resource string, args ...string) (reply, error) {
	return l.exec(ctx, script, l.keys.of(resource)[:3], args)
}

// exec executes one of the scripts. What it answers of a grant that this instance knows to be over
// is no answer: the end is told first, unless another call has told it meanwhile. If that fails,
// Redis counts as away for this call.
func (l *Locker) exec(ctx context.Context, script *rueidis.Lua, keys, args []string) (reply, error) {
	got, err := l.execOnce(ctx, script, keys, args)
	if err != nil || got.grant == "" {
		return got, err
	}
	if script == l.scripts.force && got.code == codeDone { // it answers with the grant that it has ended
		return got, nil
	}
	over, err := l.tellEnd(ctx, got.grant)
	over = over || l.table.knowsEnd(got.grant)
	if err == nil && over {
		got, err = l.execOnce(ctx, script, keys, args)
	}
	return got, err
}

func (l *Locker) execOnce(ctx context.Context, script *rueidis.Lua, keys, args []string) (reply, error) {
	msg, err := l.redis.Exec(ctx, script, keys, args)
	if err != nil {
		return reply{}, err
	}
	got, err := readReply(msg)
	got.at = l.opt.Clock()
	if err == nil && got.now != 0 {
		l.clock.observe(time.Now(), got.now)
	}
	return got, err
}
