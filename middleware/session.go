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
	// Get returns the live session of a token, which others share: do not change it.
	// models.ErrNotFound if there is none, any other error if nobody can say now.
	Get(ctx context.Context, token string) (*models.Session, error)
	// Seen notes that the session was used. It does not block.
	Seen(s models.Session)
	// Degraded reports whether the session of a token is read without Redis now.
	Degraded(token string) bool
}

// identity is what is known about who sent a request.
type identity struct {
	token    string
	given    bool // a token, if only an empty one
	byCookie bool
	session  *models.Session // nil unless signed in
	err      error           // why nobody can say
}

type identityKey struct{}

func identityOf(c *gin.Context) *identity {
	if known, ok := c.Get(identityKey{}); ok {
		return known.(*identity)
	}
	return &identity{}
}

// FindToken notes the token that a request carries: the one of Authorization:
// Bearer, in any case, or else the cookie's. A Bearer token hides the cookie also
// when it is bad; other schemes are ignored. It refuses nothing and looks nothing
// up: LookUp does.
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
		scheme, rest, _ := strings.Cut(strings.TrimSpace(value), " ")
		if strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

// LookUpOption changes what LookUp does.
type LookUpOption func(*lookUp)

type lookUp struct {
	sessions SessionReader
	passive  func(*gin.Context) bool
}

// IgnoreActivity leaves the idle time of a session as it is for the requests that
// passive reports true for, such as a page that refreshes itself: it would keep
// its session alive with nobody in front of it. It panics without passive.
func IgnoreActivity(passive func(*gin.Context) bool) LookUpOption {
	mustHave("IgnoreActivity", "passive", passive)
	return func(l *lookUp) { l.passive = passive }
}

// LookUp finds the session of the token that FindToken noted, and counts the
// request as activity. It refuses nothing: RequireSession does. What it found is
// there for SessionFrom. Sessions of nobody, as NewSessionStore begins them, do
// not count as found. The answer carries X-Degraded: sessions when a session was
// looked for without Redis. It panics without sessions: that is a mistake in the program.
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
		MarkDegraded(c, DegradedSessions)
	}
	session, err := l.sessions.Get(c.Request.Context(), found.token)
	switch {
	case err == nil && session.User.ID != "":
		found.session = session
		if !l.passive(c) {
			l.sessions.Seen(*session)
		}
	case err != nil && !errors.Is(err, models.ErrNotFound):
		found.err = err
		_ = c.Error(err)
	}
}

// LoadSession is FindToken and LookUp in one, for applications that put nothing
// between them.
func LoadSession(sessions SessionReader, cookieName string, options ...LookUpOption) gin.HandlerFunc {
	look := newLookUp("LoadSession", sessions, options)
	return func(c *gin.Context) { look.up(c, findToken(c, cookieName)) }
}

// RequireSession answers 401 unless LookUp found the session of a user, and 503
// if nobody can say: never 401 because of a failure, and never through.
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

// RequireRole answers 403 unless the signed-in user has the role, or one that
// includes it. Without a session it answers as RequireSession does. It panics on a role
// that there is not: that is a mistake in the program.
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

// SessionFrom returns the session of the signed-in user who sent the request.
func SessionFrom(c *gin.Context) (models.Session, bool) {
	if session := identityOf(c).session; session != nil {
		return *session, true
	}
	return models.Session{}, false
}

// SessionError is why LookUp could not say whether there is a session; nil if it could.
func SessionError(c *gin.Context) error { return identityOf(c).err }

// TokenFrom returns the token that FindToken noted, be it good or bad; "" if none.
func TokenFrom(c *gin.Context) string { return identityOf(c).token }

// FromCookie reports whether that token came by cookie, which a browser also
// sends with requests that other sites make.
func FromCookie(c *gin.Context) bool { return identityOf(c).byCookie }

func refuseSignedOut(c *gin.Context) {
	c.Header("WWW-Authenticate", "Bearer")
	WriteProblem(c, models.NewProblem("unauthenticated", "There is no session, or it has ended. Sign in and send its token."))
}

func refuseSessionUnknown(c *gin.Context) {
	refuseUnavailable(c, "Sessions cannot be looked up at the moment. You are not signed out: try again.")
}
