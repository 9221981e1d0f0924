package ratelimit

import (
	"embed"
	"strconv"

	"github.com/redis/rueidis"
)

const (
	takeArgs    = 8 // of take.lua, for each hit
	takeReplies = 6
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

type scriptSet struct{ take, takeLog, takeBucket, refund, reset, flush, flushBlocks, block *rueidis.Lua }

// loadScripts puts what the scripts share before each of them, but for the two that are in one
// piece.
func loadScripts() scriptSet {
	both := script("common") + script("sliding_log") + script("gcra")
	hits, putBack := both+script("hit"), script("put_back")
	return scriptSet{
		take:        rueidis.NewLuaScript(hits + script("take")),
		takeLog:     rueidis.NewLuaScript(script("take_log")),
		takeBucket:  rueidis.NewLuaScript(script("take_bucket")),
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
	return append(args, callName(id), strconv.FormatInt(req.rule.burst, 10), strconv.FormatInt(req.rule.limit, 10),
		strconv.FormatInt(req.rule.window, 10), strconv.FormatInt(req.cost, 10), shadow, e.member, strconv.FormatInt(e.until, 10))
}

// callName is the id of a call as an argument; without one the script only looks.
func callName(id int64) string {
	if id == 0 {
		return ""
	}
	return strconv.FormatInt(id, 10)
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
