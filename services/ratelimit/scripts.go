package ratelimit

import (
	"embed"
	"strconv"

	"github.com/redis/rueidis"
)

const (
	takeArgs    = 8 // for each hit, of both take scripts
	takeReplies = 6 // for each hit
)

//go:embed lua/*.lua
var limitScriptFiles embed.FS

// limitScript is the text of an embedded script.
func limitScript(name string) string {
	text, err := limitScriptFiles.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err) // the name is a constant of this package
	}
	return string(text)
}

type limitScripts struct{ take, batch, refund, reset, flush, flushBlocks, block *rueidis.Lua }

// loadLimitScripts puts what the scripts share before each of them.
func loadLimitScripts() limitScripts {
	both := limitScript("common") + limitScript("sliding_log") + limitScript("gcra")
	hits, putBack := both+limitScript("hit"), limitScript("put_back")
	return limitScripts{
		take:        rueidis.NewLuaScript(hits + limitScript("take")),
		batch:       rueidis.NewLuaScript(hits + limitScript("take_batch")),
		refund:      rueidis.NewLuaScript(both + limitScript("refund")),
		reset:       rueidis.NewLuaScript(limitScript("common") + limitScript("reset")),
		flush:       rueidis.NewLuaScript(both + putBack + limitScript("flush")),
		flushBlocks: rueidis.NewLuaScript(limitScript("common") + putBack + limitScript("flush_blocks")),
		block:       rueidis.NewLuaScript(limitScript("common") + putBack + limitScript("block")),
	}
}

// addTakeArgs appends the arguments of one request; with id 0 the script only looks.
func addTakeArgs(args []string, id int64, req *request, e *expectation) []string {
	name, shadow := "", "0"
	if id != 0 {
		name = strconv.FormatInt(id, 10)
	}
	if req.hit.Policy.Shadow {
		shadow = "1"
	}
	return append(args, name, strconv.FormatInt(req.rule.burst, 10), strconv.FormatInt(req.rule.limit, 10),
		strconv.FormatInt(req.rule.window, 10), strconv.FormatInt(req.cost, 10), shadow, e.member, strconv.FormatInt(e.until, 10))
}

func refundArgs(id, cost, at int64, r rule, e expectation) []string {
	return append(formatInts(id, r.burst, r.limit, r.window, cost, at), e.member, strconv.FormatInt(e.until, 10))
}

// formatInts are numbers as arguments of a script.
func formatInts(numbers ...int64) []string {
	all := make([]string, len(numbers), 2*len(numbers))
	for i, n := range numbers {
		all[i] = strconv.FormatInt(n, 10)
	}
	return all
}
