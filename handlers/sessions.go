package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
)

type sessionList struct {
	Items []sessionAnswer `json:"items"`
	Count int             `json:"count"`
}

// endedIfNotFound: a session that is gone was signed out meanwhile.
func endedIfNotFound(err error) error {
	if errors.Is(err, models.ErrNotFound) {
		return fmt.Errorf("%w: %w", errSessionEnded, err)
	}
	return err
}

// listSessions answers my sessions.
//
//	@Summary	My sessions
//	@Tags		sessions
//	@Produce	json
//	@Success	200				{object}	sessionList
//	@Failure	401,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/sessions [get]
func (h *Handlers) listSessions(c *gin.Context) error {
	session, _ := middleware.SessionFrom(c)
	return h.answerSessions(c, session.User.ID)
}

func (h *Handlers) answerSessions(c *gin.Context, userID string) error {
	if _, err := query(c); err != nil {
		return err
	}
	all, err := h.Sessions.List(c.Request.Context(), userID)
	if err != nil {
		return err
	}
	current, _ := middleware.SessionFrom(c)
	answer := sessionList{Items: []sessionAnswer{}, Count: len(all)}
	for _, s := range all {
		answer.Items = append(answer.Items, answerSession(s, current))
	}
	return answerJSON(c, http.StatusOK, answer)
}

// endSession ends one of my sessions.
//
//	@Summary	End one of my sessions
//	@Tags		sessions
//	@Param		id	path	string	true	"session"
//	@Success	204
//	@Failure	401,403,404,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/sessions/{id} [delete]
func (h *Handlers) endSession(c *gin.Context) error {
	id, err := h.plainID(c)
	if err != nil {
		return err
	}
	if err := h.endOne(c, id); err != nil {
		return err
	}
	return noContent(c)
}

// endOne ends one of the signed-in user's sessions, for the API and the page.
func (h *Handlers) endOne(c *gin.Context, id string) error {
	session, _ := middleware.SessionFrom(c)
	return h.Accounts.Audited(c.Request.Context(), func(ctx context.Context) error {
		return h.Sessions.DeleteByID(ctx, session.User.ID, id)
	}, h.auditEntry(c, models.AuditSessionRevoked, session.User.Email, "user:"+session.User.ID, "session "+id))
}

// endSessions ends my other sessions, or all of them.
//
//	@Summary	End my other sessions
//	@Tags		sessions
//	@Param		all	query	bool	false	"this one too"
//	@Success	204
//	@Failure	401,403,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/sessions [delete]
func (h *Handlers) endSessions(c *gin.Context) error {
	params, err := query(c, "all")
	if err != nil {
		return err
	}
	all, given := params["all"]
	if given && all != "true" && all != "false" {
		return models.Invalid("all", "must be true or false")
	}
	if err := h.endMine(c, all == "true"); err != nil {
		return err
	}
	return noContent(c)
}

// endMine ends the signed-in user's other sessions, or all of them.
func (h *Handlers) endMine(c *gin.Context, thisToo bool) error {
	session, _ := middleware.SessionFrom(c)
	end, detail := func(ctx context.Context) error { return h.Sessions.DeleteOthers(ctx, session) }, "all others"
	if thisToo {
		end, detail = func(ctx context.Context) error { return h.Sessions.DeleteUser(ctx, session.User.ID) }, "all"
	}
	return h.Accounts.Audited(c.Request.Context(), end,
		h.auditEntry(c, models.AuditSessionsRevoked, session.User.Email, "user:"+session.User.ID, detail))
}

// userSessions answers a user's sessions.
//
//	@Summary	A user's sessions (administrators)
//	@Tags		users
//	@Produce	json
//	@Param		id						path		string	true	"user"
//	@Success	200						{object}	sessionList
//	@Failure	401,403,404,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/users/{id}/sessions [get]
func (h *Handlers) userSessions(c *gin.Context) error {
	user, err := h.pathUser(c)
	if err != nil {
		return err
	}
	return h.answerSessions(c, user.ID)
}

// endUserSessions ends all sessions of a user.
//
//	@Summary	End a user's sessions (administrators)
//	@Tags		users
//	@Param		id	path	string	true	"user"
//	@Success	204
//	@Failure	401,403,404,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/users/{id}/sessions [delete]
func (h *Handlers) endUserSessions(c *gin.Context) error {
	user, err := h.pathUser(c)
	if err != nil {
		return err
	}
	if err := h.endAllOf(c, user.ID); err != nil {
		return err
	}
	return noContent(c)
}

// endAllOf ends all sessions of a user, for the API and the page.
func (h *Handlers) endAllOf(c *gin.Context, userID string) error {
	session, _ := middleware.SessionFrom(c)
	return h.Accounts.Audited(c.Request.Context(), func(ctx context.Context) error {
		return h.Sessions.DeleteUser(ctx, userID)
	}, h.auditEntry(c, models.AuditSessionsRevoked, session.User.Email, "user:"+userID, "all"))
}

// endEverybody ends everybody's sessions but this one.
//
//	@Summary	End everybody's sessions but this one (administrators)
//	@Tags		sessions
//	@Success	204
//	@Failure	401,403,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/sessions/end-all [post]
func (h *Handlers) endEverybody(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	if err := h.endAllOthers(c); err != nil {
		return err
	}
	return noContent(c)
}

// endAllOthers ends everybody's sessions but this one, for the API and the page.
func (h *Handlers) endAllOthers(c *gin.Context) error {
	session, _ := middleware.SessionFrom(c)
	return endedIfNotFound(h.Accounts.Audited(c.Request.Context(), func(ctx context.Context) error {
		return h.Sessions.DeleteAll(ctx, session)
	}, h.auditEntry(c, models.AuditSessionsRevoked, session.User.Email, "everybody", "all but this one")))
}
