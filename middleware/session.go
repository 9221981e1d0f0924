package middleware

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// SessionReader finds sessions; *session.Cache is one.
type SessionReader interface {
	// Get returns the live session of a token. Other requests share it: do not change it.
	// models.ErrNotFound if there is none; with any other error it is unknown.
	Get(ctx context.Context, token string) (*models.Session, error)
	// Touch records that the session was used. It does not block.
	Touch(s models.Session)
	// Degraded reports whether a token is looked up without Redis now.
	Degraded(token string) bool
}

// identity is what is known about the sender of a request.
type identity struct {
	token    string
	given    bool // there is a token, maybe an empty one
	byCookie bool
	session  *models.Session // nil unless signed in
	err      error           // why the session is unknown
}

type identityKey struct{}

func identityOf(c *gin.Context) *identity {
	if known, ok := c.Get(identityKey{}); ok {
		return known.(*identity)
	}
	return &identity{}
}

// FindToken finds the token of a request for LookUp and TokenFrom: that of Authorization:
// Bearer, else that of the cookie. A bad Bearer token hides the cookie, too; other schemes
// are ignored. With an empty cookieName it reads no cookie. It refuses nothing and looks
// nothing up.
func FindToken(cookieName string) gin.HandlerFunc {
	return func(c *gin.Context) { findToken(c, cookieName) }
}

func findToken(c *gin.Context, cookieName string) *identity {
	found := &identity{}
	if token, ok := bearerToken(c.Request.Header); ok {
		found.token, found.given = token, true
	} else if cookie, err := c.Request.Cookie(cookieName); err == nil {
		found.token, found.given, found.byCookie = cookie.Value, true, true
	}
	c.Set(identityKey{}, found)
	return found
}

func bearerToken(h http.Header) (token string, ok bool) {
	for _, value := range h["Authorization"] {
		value = strings.TrimSpace(value)
		end := strings.IndexAny(value, " \t")
		if end < 0 {
			end = len(value)
		}
		if strings.EqualFold(value[:end], "Bearer") {
			return strings.TrimSpace(value[end:]), true
		}
	}
	return "", false
}

// LookUpOption changes what LookUp does; see IgnoreActivity.
type LookUpOption func(*lookUp)

type lookUp struct {
	sessions SessionReader
	passive  func(*gin.Context) bool
}

// IgnoreActivity does not count requests as activity for which passive reports true. A page
// that refreshes itself would keep its session alive for ever. It panics without passive.
func IgnoreActivity(passive func(*gin.Context) bool) LookUpOption {
	mustHave("IgnoreActivity", "passive", passive)
	return func(l *lookUp) { l.passive = passive }
}

// LookUp finds the session of FindToken's token for SessionFrom, and counts the request as
// activity. It refuses nothing: RequireSession does. A session without a user, which a
// SessionStore may begin, does not count as found. Without Redis it looks in the database,
// and the answer has X-Degraded: sessions. It panics without sessions: that is a mistake in
// the program.
func LookUp(sessions SessionReader, options ...LookUpOption) gin.HandlerFunc {
	look := newLookUp("LookUp", sessions, options)
	return func(c *gin.Context) { look.up(c, identityOf(c)) }
}

func newLookUp(middleware string, sessions SessionReader, options []LookUpOption) *lookUp {
	mustHave(middleware, "SessionReader", sessions)
	look := &lookUp{sessions: sessions, passive: func(*gin.Context) bool { return false }}
	for _, set := range options {
		if set == nil {
			panic("middleware." + middleware + ": an option is nil")
		}
		set(look)
	}
	return look
}

func (l *lookUp) up(c *gin.Context, found *identity) {
	if !found.given || found.token == "" {
		return
	}
	if l.sessions.Degraded(found.token) {
		SetDegradedHeader(c, DegradedSessions)
	}
	session, err := l.sessions.Get(c.Request.Context(), found.token)
	switch {
	case err == nil && session.User.ID != "":
		found.session = session
		if !l.passive(c) {
			l.sessions.Touch(*session)
		}
	case err != nil && !errors.Is(err, models.ErrNotFound):
		found.err = err
		_ = c.Error(err)
	}
}

// LoadSession is FindToken and LookUp in one, for applications with no middleware between
// them.
func LoadSession(sessions SessionReader, cookieName string, options ...LookUpOption) gin.HandlerFunc {
	look := newLookUp("LoadSession", sessions, options)
	return func(c *gin.Context) { look.up(c, findToken(c, cookieName)) }
}

// RequireSession answers 401 unauthenticated unless LookUp found the session of a user. If
// LookUp failed it answers 503 unavailable: a failure neither signs a user out nor lets a
// request pass.
func RequireSession() gin.HandlerFunc {
	return func(c *gin.Context) {
		switch found := identityOf(c); {
		case found.session != nil:
		case found.err != nil:
			refuseSessionUnknown(c)
		default:
			refuseSignedOut(c)
		}
	}
}

// RequireRole answers 403 forbidden unless the signed-in user has the role, or one that
// includes it. Without a session it answers like RequireSession. It panics on an unknown
// role: that is a mistake in the program.
func RequireRole(role string) gin.HandlerFunc {
	if err := models.ValidateRoles([]string{role}); err != nil {
		panic("middleware.RequireRole: no role " + strconv.Quote(role))
	}
	signedIn := RequireSession()
	return func(c *gin.Context) {
		signedIn(c)
		if c.IsAborted() || models.HasRole(identityOf(c).session.Roles, role) {
			return
		}
		WriteProblem(c, models.NewProblem("forbidden", "This needs the role "+role+". Ask an administrator for it."))
	}
}

// SessionFrom returns the session that LookUp found; ok is false if it found none.
func SessionFrom(c *gin.Context) (session models.Session, ok bool) {
	if session := identityOf(c).session; session != nil {
		return *session, true
	}
	return models.Session{}, false
}

// SessionError is the error of a LookUp that failed; nil if it found a session or none.
func SessionError(c *gin.Context) error { return identityOf(c).err }

// TokenFrom returns the token that FindToken found, valid or not; "" if none.
func TokenFrom(c *gin.Context) string { return identityOf(c).token }

// FromCookie reports whether that token came from the cookie. A browser sends the cookie even
// with requests that other sites cause.
func FromCookie(c *gin.Context) bool { return identityOf(c).byCookie }

func refuseSignedOut(c *gin.Context) {
	c.Header("WWW-Authenticate", "Bearer")
	WriteProblem(c, models.NewProblem("unauthenticated", "There is no session, or it has ended. Sign in and send its token."))
}

func refuseSessionUnknown(c *gin.Context) {
	refuseUnavailable(c, "Sessions cannot be looked up at the moment. You are not signed out: try again.")
}
