package handlers

import (
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services"
)

type loginBody struct {
	Email    *string `json:"email" binding:"required" example:"alice@example.com"`
	Password *string `json:"password" binding:"required" example:"gatehouse-demo"`
}

type passwordBody struct {
	CurrentPassword *string `json:"currentPassword" binding:"required"`
	NewPassword     *string `json:"newPassword" binding:"required" minLength:"12" maxLength:"128"`
}

type userRef struct {
	ID    string   `json:"id"`
	Email string   `json:"email"`
	Roles []string `json:"roles"`
}

type loginAnswer struct {
	Token     string    `json:"token"`
	TokenType string    `json:"tokenType" example:"Bearer"`
	ExpiresAt time.Time `json:"expiresAt"`
	User      userRef   `json:"user"`
}

type tokenAnswer struct {
	Token     string    `json:"token"`
	TokenType string    `json:"tokenType" example:"Bearer"`
	ExpiresAt time.Time `json:"expiresAt"`
}

type sessionAnswer struct {
	ID         string    `json:"id"`
	User       userRef   `json:"user"`
	CreatedAt  time.Time `json:"createdAt"`
	LastSeenAt time.Time `json:"lastSeenAt"`
	ExpiresAt  time.Time `json:"expiresAt"`
	UserAgent  string    `json:"userAgent"`
	IP         string    `json:"ip"`
	Current    bool      `json:"current"`
}

func userRefOf(s models.Session) userRef {
	return userRef{ID: s.User.ID, Email: s.User.Email, Roles: s.Roles}
}

func answerSession(s, current models.Session) sessionAnswer {
	return sessionAnswer{
		ID: s.ID, User: userRefOf(s), CreatedAt: s.CreatedAt, LastSeenAt: s.LastSeen, ExpiresAt: s.ExpiresAt,
		UserAgent: s.UserAgent, IP: s.IP, Current: s.Hash == current.Hash,
	}
}

// login signs in for the API.
//
//	@Summary	Sign in
//	@Tags		auth
//	@Accept		json
//	@Produce	json
//	@Param		body	body		loginBody	true	"e-mail address and password"
//	@Success	200		{object}	loginAnswer
//	@Failure	400,403,413,415,422,429,503	{object}	problemDoc
//	@Failure	401	{object}	problemDoc	"invalid-credentials"
//	@Router		/auth/login [post]
func (h *Handlers) login(c *gin.Context) error {
	body, err := decode[loginBody](c)
	if err == nil {
		err = joinInvalid(missing("email", body.Email), missing("password", body.Password))
	}
	if err != nil {
		return err
	}
	token, session, err := h.signIn(c, *body.Email, *body.Password)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, loginAnswer{Token: token, TokenType: "Bearer", ExpiresAt: session.ExpiresAt, User: userRefOf(session)})
}

// signIn counts the attempt, begins a session, and ends the session that the request had. The
// API and the page share it.
func (h *Handlers) signIn(c *gin.Context, email, password string) (string, models.Session, error) {
	ctx, client := c.Request.Context(), clientOf(c)
	if err := h.allowSignIn(c, email); err != nil {
		return "", models.Session{}, err
	}
	token, session, err := h.Accounts.SignIn(ctx, email, password, client)
	if err != nil {
		return "", models.Session{}, err
	}
	if h.Sessions.Degraded(token) {
		middleware.SetDegradedHeader(c, middleware.DegradedSessions)
	}
	if old, ok := middleware.SessionFrom(c); ok {
		if err := h.Accounts.Supersede(ctx, old, session, client); err != nil {
			return "", models.Session{}, err
		}
	}
	return token, session, nil
}

func (h *Handlers) allowSignIn(c *gin.Context, email string) error {
	decisions, err := h.Accounts.AllowSignIn(c.Request.Context(), email, clientOf(c))
	if err != nil {
		return err
	}
	middleware.WriteDecisions(c, decisions)
	if slices.ContainsFunc(decisions, func(d models.Decision) bool { return !d.Allowed }) {
		return &quotaError{decisions}
	}
	return nil
}

// quotaError says that a rate limit refuses the request.
type quotaError struct{ decisions []models.Decision }

func (e *quotaError) Error() string { return "quota exceeded" }

func clientOf(c *gin.Context) services.Client {
	return services.Client{
		IP: c.ClientIP(), Network: middleware.ClientNetwork(c), UserAgent: c.Request.UserAgent(), RequestID: middleware.RequestIDFrom(c),
	}
}

// logout ends the session.
//
//	@Summary	Sign out
//	@Tags		auth
//	@Success	204
//	@Failure	401,403,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/auth/logout [post]
func (h *Handlers) logout(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	if err := h.Accounts.SignOut(c.Request.Context(), signedIn(c), clientOf(c)); err != nil {
		return err
	}
	if middleware.FromCookie(c) {
		h.clearBrowser(c)
	}
	return noContent(c)
}

// currentSession answers the session of the request.
//
//	@Summary	The current session
//	@Tags		auth
//	@Produce	json
//	@Success	200	{object}	sessionAnswer
//	@Failure	401,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/auth/session [get]
func (h *Handlers) currentSession(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	session := signedIn(c)
	return answerJSON(c, http.StatusOK, answerSession(session, session))
}

// refreshSession starts the idle time of the session anew.
//
//	@Summary	Start the idle time anew
//	@Tags		auth
//	@Produce	json
//	@Success	200	{object}	sessionAnswer
//	@Failure	401,403,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/auth/refresh [post]
func (h *Handlers) refreshSession(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	fresh, err := h.Sessions.Refresh(c.Request.Context(), signedIn(c))
	if err != nil {
		return endedIfNotFound(err)
	}
	return answerJSON(c, http.StatusOK, answerSession(fresh, fresh))
}

// changePassword sets the user's own password.
//
//	@Summary	Change my password; my other sessions end
//	@Tags		auth
//	@Accept		json
//	@Produce	json
//	@Param		body	body		passwordBody	true	"the new one has 12 to 128 characters"
//	@Success	200		{object}	tokenAnswer
//	@Failure	400,401,403,413,415,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/auth/password [post]
func (h *Handlers) changePassword(c *gin.Context) error {
	body, err := decode[passwordBody](c)
	if err == nil {
		err = joinInvalid(missing("currentPassword", body.CurrentPassword), missing("newPassword", body.NewPassword))
	}
	if err == nil {
		err = models.ValidatePassword("newPassword", *body.NewPassword)
	}
	if err != nil {
		return err
	}
	session := signedIn(c)
	if err := h.allowSignIn(c, session.User.Email); err != nil {
		return err
	}
	token, fresh, err := h.Accounts.ChangePassword(c.Request.Context(), session, *body.CurrentPassword, *body.NewPassword, clientOf(c))
	if err != nil {
		return endedIfNotFound(err)
	}
	if middleware.FromCookie(c) {
		h.Cookie.SetCookie(c.Writer, token, fresh.ExpiresAt)
	}
	return answerJSON(c, http.StatusOK, tokenAnswer{Token: token, TokenType: "Bearer", ExpiresAt: fresh.ExpiresAt})
}
