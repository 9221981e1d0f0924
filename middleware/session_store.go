package middleware

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-contrib/sessions"
	gorilla "github.com/gorilla/sessions"

	"gatehouse/models"
)

const maxSaveRetries = 10 // of one Save, while other requests store in between

// SessionBackend keeps the sessions of a SessionStore; *session.Cache is one.
type SessionBackend interface {
	SessionReader
	// Create begins a session that has the Data of s and no user.
	Create(ctx context.Context, s models.Session) (token string, begun models.Session, err error)
	// SaveData stores data if the session still has s.Version, whose next is one more, else it
	// returns models.ErrStale and the session as it is now. models.ErrNotFound if it has ended.
	SaveData(ctx context.Context, s models.Session, data []byte) (models.Session, error)
	// Delete ends the session of a token. models.ErrNotFound if there is none.
	Delete(ctx context.Context, token string) error
}

// SessionStoreOptions configures a SessionStore.
type SessionStoreOptions struct {
	// Name names the cookie for SetCookie and ClearCookie. Empty is "session".
	Name string
	// Secure is for sites on https: browsers send the cookie over https only. Its name begins
	// with __Host-, so that no other site of the domain can set it.
	Secure bool
}

// SessionStore is a Store of gin-contrib/sessions on a SessionBackend. Values are in the same
// record as the sign-in, so they end with it; the cookie holds only the token. Values are
// encoded with encoding/gob: register your own types with gob.Register. All values of a
// session together have at most 64 KiB. A SessionStore is safe for concurrent use.
//
// The changes of two requests to one session are merged key by key. If both changed one key,
// Save of the later request returns models.ErrStale and stores nothing. Save never revives a
// session that has ended: it returns models.ErrNotFound.
//
// If the backend fails, Get returns its error and no session. Sessions then answers 503; with
// the middleware of gin-contrib, sessions.Default(c) panics instead of returning an empty
// session. Whether the backend works without Redis is its own business: *session.Cache does.
type SessionStore struct {
	backend SessionBackend
	name    string
	options sessions.Options
}

// NewSessionStore returns a store whose cookies are for the whole site, HttpOnly, SameSite=Lax,
// and end when the browser closes. It panics without a backend, and on a Name that no cookie
// can have: that is a mistake in the program.
func NewSessionStore(backend SessionBackend, opt SessionStoreOptions) *SessionStore {
	mustHave("NewSessionStore", "SessionBackend", backend)
	name := opt.Name
	if name == "" {
		name = "session"
	}
	if opt.Secure {
		name = "__Host-" + name
	}
	if (&http.Cookie{Name: name}).Valid() != nil {
		panic(fmt.Sprintf("middleware.NewSessionStore: %q is no name for a cookie", opt.Name))
	}
	return &SessionStore{
		backend: backend,
		name:    name,
		options: sessions.Options{Path: "/", Secure: opt.Secure, HttpOnly: true, SameSite: http.SameSiteLaxMode},
	}
}

// CookieName is the name to mount the store under: the configured one, after __Host- if
// Secure.
func (s *SessionStore) CookieName() string { return s.name }

// Options replaces all attributes of the cookies; those left out get their zero value. Call it
// before the first request.
func (s *SessionStore) Options(options sessions.Options) { s.options = options }

// SetCookie gives the browser the token of a session that was begun elsewhere, as by a
// sign-in. The cookie lasts until expires.
func (s *SessionStore) SetCookie(w http.ResponseWriter, token string, expires time.Time) {
	options := s.options.ToGorillaOptions()
	options.MaxAge = max(1, int(time.Until(expires)/time.Second))
	http.SetCookie(w, gorilla.NewCookie(s.name, token, options))
}

// ClearCookie makes the browser forget the token. It does not end the session.
func (s *SessionStore) ClearCookie(w http.ResponseWriter) {
	options := s.options.ToGorillaOptions()
	options.MaxAge = -1
	http.SetCookie(w, gorilla.NewCookie(s.name, "", options))
}

// loadedSession is what a gorilla session was made from. It is in the request's context, like
// gorilla's own registry.
type loadedSession struct {
	token  string
	record models.Session // Hash "" if there is none
	err    error
}

type loadedKey struct{ session *gorilla.Session }

// Get returns the request's session of a name, the same one each time. It is empty and new if
// the request has none. On an error it returns no session.
func (s *SessionStore) Get(r *http.Request, name string) (*gorilla.Session, error) {
	session, err := gorilla.GetRegistry(r).Get(s, name)
	if err != nil {
		return nil, err
	}
	return session, nil
}

// New is for gorilla's registry: use Get. The session that it returns with an error cannot be
// saved.
func (s *SessionStore) New(r *http.Request, name string) (*gorilla.Session, error) {
	session := gorilla.NewSession(s, name)
	session.Options = s.options.ToGorillaOptions()
	session.IsNew = true
	loaded, values := s.load(r, name)
	*r = *r.WithContext(context.WithValue(r.Context(), loadedKey{session}, loaded))
	if loaded.err != nil {
		return session, loaded.err
	}
	if loaded.record.Hash != "" {
		session.ID, session.Values, session.IsNew = loaded.record.ID, values, false
	}
	return session, nil
}

func (s *SessionStore) load(r *http.Request, name string) (*loadedSession, map[any]any) {
	cookie, err := r.Cookie(name)
	if err != nil {
		return &loadedSession{}, nil
	}
	record, err := s.backend.Get(r.Context(), cookie.Value)
	if errors.Is(err, models.ErrNotFound) {
		return &loadedSession{}, nil
	}
	if err != nil {
		return &loadedSession{err: fmt.Errorf("load session: %w", err)}, nil
	}
	values, err := decodeValues(record.Data)
	if err != nil {
		return &loadedSession{err: fmt.Errorf("load session %s: %w", record.ID, err)}, nil
	}
	if record.User.ID == "" { // for a signed-in user, LookUp decides what counts as activity
		s.backend.Touch(*record)
	}
	return &loadedSession{token: cookie.Value, record: *record}, values
}

// Save stores the session's values, and sets the cookie if the browser needs it. With MaxAge
// < 0 it ends the session. It does not begin an empty session. Errors: models.ErrStale and
// models.ErrNotFound as above, and those of the backend.
func (s *SessionStore) Save(r *http.Request, w http.ResponseWriter, session *gorilla.Session) error {
	loaded, ok := r.Context().Value(loadedKey{session}).(*loadedSession)
	switch {
	case !ok && session.ID != "":
		return fmt.Errorf("save session %s: it was loaded with another request", session.ID)
	case !ok:
		loaded = &loadedSession{}
		*r = *r.WithContext(context.WithValue(r.Context(), loadedKey{session}, loaded))
	case loaded.err != nil:
		return fmt.Errorf("save a session that could not be loaded: %w", loaded.err)
	}
	if session.Options == nil {
		session.Options = s.options.ToGorillaOptions()
	}
	begun := false
	switch {
	case session.Options.MaxAge < 0:
		return s.end(r, w, session, loaded)
	case loaded.record.Hash != "":
		if err := s.update(r.Context(), session, loaded); err != nil {
			return fmt.Errorf("save session %s: %w", session.ID, err)
		}
	case len(session.Values) == 0:
		return nil
	default:
		if err := s.begin(r.Context(), session, loaded); err != nil {
			return fmt.Errorf("begin session: %w", err)
		}
		begun = true
	}
	if begun || session.Options.MaxAge > 0 || *session.Options != *s.options.ToGorillaOptions() {
		http.SetCookie(w, gorilla.NewCookie(session.Name(), loaded.token, session.Options))
	}
	return nil
}

func (s *SessionStore) begin(ctx context.Context, session *gorilla.Session, loaded *loadedSession) error {
	data, err := encodeValues(session.Values)
	if err != nil {
		return err
	}
	token, record, err := s.backend.Create(ctx, models.Session{Data: data})
	if err != nil {
		return err
	}
	loaded.token, loaded.record, session.ID = token, record, record.ID
	return nil
}

// update stores the values, merged with what other requests stored since they were loaded.
func (s *SessionStore) update(ctx context.Context, session *gorilla.Session, loaded *loadedSession) error {
	values, current := session.Values, loaded.record
	for range maxSaveRetries {
		data, err := encodeValues(values)
		if err != nil {
			return err
		}
		saved, err := s.backend.SaveData(ctx, current, data)
		if err == nil {
			if saved.Version != current.Version+1 { // another request stored since: values lack that
				current.Data, current.Version = data, current.Version+1
				saved = current // so the next Save finds out, and merges
			}
			loaded.record, session.Values = saved, values
			return nil
		}
		if !errors.Is(err, models.ErrStale) {
			return err
		}
		current = saved
		if values, err = mergeValues(loaded.record.Data, session.Values, current.Data); err != nil {
			return err
		}
	}
	return fmt.Errorf("too many other requests change it: %w", models.ErrStale)
}

func (s *SessionStore) end(r *http.Request, w http.ResponseWriter, session *gorilla.Session, loaded *loadedSession) error {
	if loaded.token != "" {
		err := s.backend.Delete(r.Context(), loaded.token)
		if err != nil && !errors.Is(err, models.ErrNotFound) {
			return fmt.Errorf("end session %s: %w", session.ID, err)
		}
	}
	*loaded, session.ID = loadedSession{}, ""
	http.SetCookie(w, gorilla.NewCookie(session.Name(), "", session.Options))
	return nil
}
