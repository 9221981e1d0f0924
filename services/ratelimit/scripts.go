package ratelimit

import (
	"embed"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

const (
	takeArgs    = 8 // for each hit, of both take scripts
	takeReplies = 6 // for each hit
)

//go:embed lua/*.lua
var scriptFiles embed.FS

// script is the text of an embedded script.
func script(name string) string {
	text, err := scriptFiles.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err) // the name is a constant of this package
	}
	return string(text)
}

type scriptSet struct{ take, batch, refund, reset, flush, flushBlocks, block *rueidis.Lua }

// loadScripts puts what the scripts share before each of them.
func loadScripts() scriptSet {
	both := script("common") + script("sliding_log") + script("gcra")
	hits, putBack := both+script("hit"), script("put_back")
	return scriptSet{
		take:        rueidis.NewLuaScript(hits + script("take")),
		batch:       rueidis.NewLuaScript(script("common") + script("take_batch")),
		refund:      rueidis.NewLuaScript(both + script("refund")),
		reset:       rueidis.NewLuaScript(script("common") + script("reset")),
		flush:       rueidis.NewLuaScript(both + putBack + script("flush")),
		flushBlocks: rueidis.NewLuaScript(script("common") + putBack + script("flush_blocks")),
		block:       rueidis.NewLuaScript(script("common") + putBack + script("block")),
	}
}

// addTakeArgs appends the arguments of one request of a group; with id 0 the script only looks.
func addTakeArgs(args []string, id int64, req *request, e *expectation) []string {
	shadow := "0"
	if req.hit.Policy.Shadow {
		shadow = "1"
	}
	return addArgs(args, id, req, shadow, e.member, e.until)
}

// batchArgs are the arguments of a request that is alone in its group.
func batchArgs(id int64, req *request, e *expectation) []string {
	if req.rule.burst == 0 {
		return addArgs(nil, id, req, strconv.FormatInt(e.leaves, 10), e.member, e.until)
	}
	nonce, wrote, found := strings.Cut(e.member, " ")
	if !found {
		wrote = "0"
	}
	return addArgs(nil, id, req, wrote, nonce, e.until)
}

func addArgs(args []string, id int64, req *request, own, member string, until int64) []string {
	name := ""
	if id != 0 {
		name = strconv.FormatInt(id, 10)
	}
	return append(args, name, strconv.FormatInt(req.rule.burst, 10), strconv.FormatInt(req.rule.limit, 10),
		strconv.FormatInt(req.rule.window, 10), strconv.FormatInt(req.cost, 10), own, member, strconv.FormatInt(until, 10))
}

// addFetchArgs appends what take.lua needs to know of a block that is asked for, and of one that is
// given back.
func addFetchArgs(args []string, asked, unused *autoBlock, r rule) []string {
	return append(args, formatInts(asked.first, asked.count, autoLength(r.window), unused.first+unused.used, unused.left(), unused.cost)...)
}

// refundArgs are the arguments to take back so many admissions, with one id after the other.
func refundArgs(id, count, cost, at int64, r rule, e expectation) []string {
	return append(formatInts(id, r.burst, r.limit, r.window, cost, at, count), e.member, strconv.FormatInt(e.until, 10))
}

// formatInts are numbers as arguments of a script.
func formatInts(numbers ...int64) []string {
	all := make([]string, len(numbers), 2*len(numbers))
	for i, n := range numbers {
		all[i] = strconv.FormatInt(n, 10)
	}
	return all
}
