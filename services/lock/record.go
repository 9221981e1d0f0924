package lock

import (
	"crypto/subtle"
	"strconv"
	"strings"
	"time"

	"gatehouse/models"
)

// The offsets of the parts of a grant's text, as the scripts keep it.
const (
	grantSince = 16
	grantID    = grantSince + 13
	grantToken = grantID + 32
	grantRest  = grantToken + 43

	epochLength = 32

	noFence = "00000000000000000000000000000" // fence and since of a request that waits
)

// writeRecord is the end of a grant's text, after fence, since, id and hash of token:
// the resource and its holder, each part with its length before it.
func writeRecord(resource string, h models.Holder) string {
	text := make([]byte, 0, len(resource)+len(h.UserID)+len(h.Email)+len(h.Reason)+16)
	for _, part := range [...]string{resource, h.UserID, h.Email, h.Reason} {
		text = strconv.AppendInt(text, int64(len(part)), 10)
		text = append(append(text, ':'), part...)
	}
	return string(text)
}

// grantsTo reports whether the text of a lock's key, which is the grant's with a character before
// it or none, is the claim's. A grant that is to be confirmed is not recognized.
func grantsTo(text string, claim Claim) bool {
	if strings.HasPrefix(text, "+") || strings.HasPrefix(text, "*") {
		text = text[1:]
	}
	return len(text) >= grantRest && text[grantID:grantToken] == claim.Grant &&
		subtle.ConstantTimeCompare([]byte(text[grantToken:grantRest]), []byte(hashToken(claim.Token))) == 1
}

// record is a grant's text, taken apart.
type record struct {
	fence     int64
	grant     string // its id
	tokenHash string
	resource  string
	holder    models.Holder
}

func readRecord(text string) (g record, ok bool) {
	if len(text) < grantRest {
		return g, false
	}
	fence, err := strconv.ParseInt(text[:grantSince], 10, 64)
	since, sinceErr := strconv.ParseInt(text[grantSince:grantID], 10, 64)
	if err != nil || sinceErr != nil {
		return g, false
	}
	g.fence, g.holder.Since = fence, time.UnixMilli(since).UTC()
	g.grant, g.tokenHash = text[grantID:grantToken], text[grantToken:grantRest]
	text = text[grantRest:]
	for _, part := range [...]*string{&g.resource, &g.holder.UserID, &g.holder.Email, &g.holder.Reason} {
		size, rest, _ := strings.Cut(text, ":")
		n, err := strconv.Atoi(size)
		if err != nil || n < 0 || n > len(rest) {
			return g, false
		}
		*part, text = rest[:n], rest[n:]
	}
	return g, true
}

// readShard reads the value of a shard: its highest fence, and its epoch.
func readShard(value string) (highestFence int64, epoch string, ok bool) {
	if len(value) < grantSince {
		return 0, "", false
	}
	fence, err := strconv.ParseInt(value[:grantSince], 10, 64)
	if err != nil {
		return 0, "", false
	}
	return fence, value[grantSince:], true
}
