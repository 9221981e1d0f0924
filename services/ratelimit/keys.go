package ratelimit

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
)

const (
	// maxCallID keeps a member, which is an id and three digits for the unit, within 64 bits:
	// sorted sets hold integers in less memory.
	maxCallID = 1_000_000_000_000_000 - 1
	// maxKeyLength is how many bytes of a key are stored as they are.
	maxKeyLength = 64
)

// policyKey names what is counted.
type policyKey struct{ policy, key string }

// taggedKey is what is counted, and the hash tag under which Redis has it.
type taggedKey struct {
	tag  string
	name policyKey
}

// cleanKey is the key itself if it is short and harmless inside a Redis key, else its hash:
// keys may come from request headers.
func cleanKey(key string) string {
	clean := key != "" && len(key) <= maxKeyLength && key[0] != '#'
	for i := 0; clean && i < len(key); i++ {
		clean = key[i] > ' ' && key[i] < 0x7f && key[i] != '{' && key[i] != '}'
	}
	if clean {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return "#" + hex.EncodeToString(sum[:16])
}

// tagOf is the hash tag of a decision: the requests' common key, else the group.
func tagOf(group string, requests []request) string {
	for _, req := range requests[1:] {
		if req.name.key != requests[0].name.key {
			return cleanKey(group)
		}
	}
	return requests[0].name.key
}

// redisKey is where Redis has a request's admissions. A bucket's units depend on the window.
func (l *Limiter) redisKey(tag string, req *request) string {
	algorithm := "log"
	if req.rule.burst > 0 {
		algorithm = "gcra" + strconv.FormatInt(int64(req.hit.Policy.Window.Seconds()), 10)
	}
	return l.redis.Key("{" + tag + "}rate:" + algorithm + ":" + req.name.policy + ":" + req.name.key)
}

// resetKey is where Redis keeps when a key was reset.
func (l *Limiter) resetKey(key taggedKey) string {
	return l.redis.Key("{" + key.tag + "}rate:reset:" + key.name.policy + ":" + key.name.key)
}

// inUseKey is where Redis remembers that units of a bucket's blocks are in use.
func (l *Limiter) inUseKey(key taggedKey) string {
	return l.redis.Key("{" + key.tag + "}rate:in-use:" + key.name.policy + ":" + key.name.key)
}

// blockKeys are where Redis has the blocks of a key.
func (l *Limiter) blockKeys(key taggedKey) []string {
	blocks := l.redis.Key("{" + key.tag + "}rate:lease:" + key.name.policy + ":" + key.name.key)
	return []string{blocks, blocks + ":units"}
}
