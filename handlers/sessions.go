package handlers

import (
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
)

type sessionList struct {
	Items []sessionAnswer `json:"items"`
	Count int             `json:"count"`
}

// endedIfNotFound turns ErrNotFound about the request's own session into errSessionEnded.
func endedIfNotFound(err error) error {
	if errors.Is(err, models.ErrNotFound) {
		return errSessionEnded
	}
	return err
}

// listSessions answers the sessions of the user.
//
//	@Summary	My sessions
//	@Tags		sessions
//	@Produce	json
//	@Success	200	{object}	sessionList
//	@Failure	401,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/sessions [get]
func (h *Handlers) listSessions(c *gin.Context) error {
	return h.answerSessions(c, signedIn(c).User.ID)
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

// endSession ends one session of the user.
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
	if err := h.Accounts.EndSession(c.Request.Context(), signedIn(c), id, clientOf(c)); err != nil {
		return err
	}
	return noContent(c)
}

// endSessions ends the user's other sessions, or all of them.
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
	session := signedIn(c)
	if all == "true" {
		err = h.Accounts.EndUserSessions(c.Request.Context(), session.User.Email, session.User.ID, clientOf(c))
	} else {
		err = h.Accounts.EndOtherSessions(c.Request.Context(), session, clientOf(c))
	}
	if err != nil {
		return endedIfNotFound(err)
	}
	return noContent(c)
}

// userSessions answers a user's sessions.
//
//	@Summary	A user's sessions (administrators)
//	@Tags		users
//	@Produce	json
//	@Param		id	path		string	true	"user"
//	@Success	200	{object}	sessionList
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
	if err := h.Accounts.EndUserSessions(c.Request.Context(), signedIn(c).User.Email, user.ID, clientOf(c)); err != nil {
		return err
	}
	return noContent(c)
}

// endAllSessions ends the sessions of all users but this one.
//
//	@Summary	End everybody's sessions but this one (administrators)
//	@Tags		sessions
//	@Success	204
//	@Failure	401,403,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/sessions/end-all [post]
func (h *Handlers) endAllSessions(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	if err := h.Accounts.EndAllSessions(c.Request.Context(), signedIn(c), clientOf(c)); err != nil {
		return endedIfNotFound(err)
	}
	return noContent(c)
}
