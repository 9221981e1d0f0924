package middleware

import (
	"fmt"
	"strings"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
)

// Flash is a message for the next page that the user sees: it says what was done, or that
// it Failed.
type Flash struct {
	Text   string
	Failed bool
	At     time.Time // a time that is in Text, in words, to the second; zero if there is none
}

// stored is the message as a session keeps it.
func (f Flash) stored() string {
	if f.At.IsZero() {
		return f.Text
	}
	return f.At.UTC().Format(time.RFC3339) + "\n" + f.Text
}

func storedFlash(text string, failed bool) Flash {
	if at, rest, ok := strings.Cut(text, "\n"); ok {
		if at, err := time.Parse(time.RFC3339, at); err == nil {
			return Flash{Text: rest, Failed: failed, At: at}
		}
	}
	return Flash{Text: text, Failed: failed}
}

const (
	doneKey   = "gatehouse.done"
	failedKey = "gatehouse.failed"
)

// AddFlash keeps a message in the session until Flashes returns it. The route needs Sessions.
// A client that is not signed in gets a session for it. On an error the message is lost;
// nothing else is undone.
func AddFlash(c *gin.Context, flash Flash) error {
	key := doneKey
	if flash.Failed {
		key = failedKey
	}
	session := sessions.Default(c)
	session.AddFlash(flash.stored(), key)
	if err := session.Save(); err != nil {
		return fmt.Errorf("keep flash: %w", err)
	}
	return nil
}

// Flashes returns the kept messages, failures first, and removes them from the session. The
// route needs Sessions. Without messages it writes nothing. On an error the messages are
// returned, and will be again.
func Flashes(c *gin.Context) ([]Flash, error) {
	session := sessions.Default(c)
	var found []Flash
	for _, key := range []string{failedKey, doneKey} {
		if session.Get(key) == nil {
			continue // session.Flashes would store an unchanged session
		}
		for _, value := range session.Flashes(key) {
			if text, ok := value.(string); ok {
				found = append(found, storedFlash(text, key == failedKey))
			}
		}
	}
	if err := session.Save(); err != nil {
		return found, fmt.Errorf("forget flashes: %w", err)
	}
	return found, nil
}
