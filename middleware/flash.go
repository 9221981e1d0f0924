package middleware

import (
	"fmt"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
)

// Flash is a message for the next page that the user sees: what was done, or
// what failed.
type Flash struct {
	Text   string
	Failed bool
}

const (
	doneKey   = "gatehouse.done"
	failedKey = "gatehouse.failed"
)

// AddFlash keeps a message in the session until Flashes hands it over. It needs
// Sessions before it. Someone who is not signed in gets a session for it. An
// error says that the message was not kept; what it tells of was done all the same.
func AddFlash(c *gin.Context, flash Flash) error {
	key := doneKey
	if flash.Failed {
		key = failedKey
	}
	session := sessions.Default(c)
	session.AddFlash(flash.Text, key)
	if err := session.Save(); err != nil {
		return fmt.Errorf("keep flash: %w", err)
	}
	return nil
}

// Flashes returns the messages kept, failures first, and forgets them. It needs
// Sessions before it, and writes to the session only if there are any. An error
// says that they could not be forgotten and may come again.
func Flashes(c *gin.Context) ([]Flash, error) {
	session := sessions.Default(c)
	var found []Flash
	for _, key := range []string{failedKey, doneKey} {
		if session.Get(key) == nil {
			continue // Flashes would mark the session as changed
		}
		for _, value := range session.Flashes(key) {
			if text, ok := value.(string); ok {
				found = append(found, Flash{Text: text, Failed: key == failedKey})
			}
		}
	}
	if err := session.Save(); err != nil {
		return found, fmt.Errorf("forget flashes: %w", err)
	}
	return found, nil
}
