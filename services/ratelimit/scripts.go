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

type limitScripts struct{ take, each, refund, reset, account, blocks, lease *rueidis.Lua }

// loadLimitScripts puts what the scripts share before each of them.
func loadLimitScripts() limitScripts {
	shared := limitScript("common") + limitScript("sliding_log") + limitScript("gcra")
	hits := shared + limitScript("hit")
	return limitScripts{
		take:    rueidis.NewLuaScript(hits + limitScript("take")),
		each:    rueidis.NewLuaScript(hits + limitScript("take_each")),
		refund:  rueidis.NewLuaScript(shared + limitScript("refund")),
		reset:   rueidis.NewLuaScript(shared + limitScript("reset")),
		account: rueidis.NewLuaScript(shared + limitScript("account")),
		blocks:  rueidis.NewLuaScript(shared + limitScript("account_blocks")),
		lease:   rueidis.NewLuaScript(shared + limitScript("lease")),
	}
}

// addTakeArgs appends the arguments of one hit; with id 0 the script only looks.
func addTakeArgs(args []string, id int64, a *ask, e *expectation) []string {
	name, shadow := "", "0"
	if id != 0 {
		name = strconv.FormatInt(id, 10)
	}
	if a.hit.Policy.Shadow {
		shadow = "1"
	}
	return append(args, name, strconv.FormatInt(a.rule.burst, 10), strconv.FormatInt(a.rule.limit, 10),
		strconv.FormatInt(a.rule.window, 10), strconv.FormatInt(a.cost, 10), shadow, e.member, strconv.FormatInt(e.until, 10))
}
