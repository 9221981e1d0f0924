package handlers

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/services"
)

// On the pages a lock token is in a cookie, which no script reads and which goes to the pages of
// its process alone. Its name carries the lock's short id, so that two tabs have two locks.

const (
	lockCookiePrefix = "gatehouse-lock-"
	// lockCookieLife is longer than any lock: how a lost one ended is known as long.
	lockCookieLife = 24 * time.Hour
	// lockCookies is how many cookies of one process a browser keeps: of locks that are over, too.
	lockCookies = 4
)

// lockID is the short name of a grant in addresses and forms. It is no secret, and does not say
// which grant it is.
func lockID(grant string) string {
	sum := sha256.Sum256([]byte("page " + grant))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// isLockID reports whether text can be one of lockID.
func isLockID(text string) bool { return len(text) == 12 && isID(text) }

// lockCookieName has the prefix with which browsers take a cookie from https only, where the
// session's cookie has one, too.
func (h *Handlers) lockCookieName(lock string) string {
	name := lockCookiePrefix + lock
	if strings.HasPrefix(h.Cookie.CookieName(), "__Host-") {
		return "__Secure-" + name
	}
	return name
}

// keepLock gives the browser the token of a lock that was granted to it, and returns the lock's
// short id. Of former locks of the process it keeps only some.
func (h *Handlers) keepLock(c *gin.Context, process string, lock services.ProcessLock) string {
	id := lockID(lock.Grant)
	var others []string // browsers send the oldest first
	for _, cookie := range c.Request.Cookies() {
		if _, other, ok := strings.Cut(cookie.Name, lockCookiePrefix); ok && isLockID(other) && other != id {
			others = append(others, other)
		}
	}
	for _, other := range others[:max(0, len(others)-(lockCookies-1))] {
		h.dropLock(c, process, other)
	}
	h.setLockCookie(c, process, id, lock.Token, int(lockCookieLife/time.Second))
	return id
}

// hasLock reports whether the browser has a lock of the process, or had one in the last 24 hours.
func hasLock(c *gin.Context) bool {
	return slices.ContainsFunc(c.Request.Cookies(), func(cookie *http.Cookie) bool {
		_, id, ok := strings.Cut(cookie.Name, lockCookiePrefix)
		return ok && isLockID(id)
	})
}

// dropLock makes the browser forget a lock.
func (h *Handlers) dropLock(c *gin.Context, process, lock string) {
	h.setLockCookie(c, process, lock, "", -1)
}

func (h *Handlers) setLockCookie(c *gin.Context, process, lock, token string, maxAge int) {
	name := h.lockCookieName(lock)
	http.SetCookie(c.Writer, &http.Cookie{
		Name: name, Value: token, Path: "/processes/" + process, MaxAge: maxAge,
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: strings.HasPrefix(name, "__Secure-"),
	})
}

// lockToken is the token of a lock that the browser has; "" if it has none.
func (h *Handlers) lockToken(c *gin.Context, lock string) string {
	if !isLockID(lock) {
		return ""
	}
	cookie, err := c.Request.Cookie(h.lockCookieName(lock))
	if err != nil {
		return ""
	}
	return cookie.Value
}
