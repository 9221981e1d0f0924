package handlers

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
	"gatehouse/models/email"
	"gatehouse/services"
)

type createUserBody struct {
	Email    *string  `json:"email" binding:"required" example:"new@example.com"`
	Password *string  `json:"password" binding:"required" minLength:"12" maxLength:"128"`
	Roles    []string `json:"roles" binding:"required" enums:"viewer,editor,admin"`
}

type patchUserBody struct {
	Roles    []string `json:"roles" enums:"viewer,editor,admin"`
	Disabled *bool    `json:"disabled"`
	Password *string  `json:"password" minLength:"12" maxLength:"128"`
}

type userList struct {
	Items      []models.User `json:"items"`
	NextCursor *string       `json:"nextCursor"`
}

type auditList struct {
	Items      []models.AuditEntry `json:"items"`
	NextCursor *string             `json:"nextCursor"`
}

// listUsers answers a page of users.
//
//	@Summary	List users (administrators)
//	@Tags		users
//	@Produce	json
//	@Param		limit	query		int		false	"1 to 200"	default(50)
//	@Param		cursor	query		string	false	"nextCursor of the page before"
//	@Success	200		{object}	userList
//	@Failure	401,403,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/users [get]
func (h *Handlers) listUsers(c *gin.Context) error {
	params, err := query(c, "limit", "cursor")
	if err != nil {
		return err
	}
	wanted, err := page(params)
	if err != nil {
		return err
	}
	users, err := h.Accounts.Users(c.Request.Context(), wanted)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, userList{Items: items(users.Items), NextCursor: users.NextCursor})
}

// createUser adds a user.
//
//	@Summary	Create a user (administrators)
//	@Tags		users
//	@Accept		json
//	@Produce	json
//	@Param		body	body		createUserBody	true	"the password has 12 to 128 characters"
//	@Success	201		{object}	models.User
//	@Header		201		{string}	Location	"its address"
//	@Failure	400,401,403,413,415,422,429,503	{object}	problemDoc
//	@Failure	409	{object}	problemDoc	"conflict: the e-mail address is in use"
//	@Security	Bearer
//	@Router		/users [post]
func (h *Handlers) createUser(c *gin.Context) error {
	body, err := decode[createUserBody](c)
	if err != nil {
		return err
	}
	address, err := checkNewUser(body)
	if err != nil {
		return err
	}
	user, err := h.Accounts.CreateUser(c.Request.Context(), signedIn(c).User.Email, address, *body.Password, body.Roles, clientOf(c))
	if err != nil {
		return userConflict(err, "email")
	}
	c.Header("Location", "/api/v1/users/"+user.ID)
	return answerJSON(c, http.StatusCreated, user)
}

// checkNewUser reports all errors at once, and returns the normalised address.
func checkNewUser(body createUserBody) (address string, err error) {
	problems := []error{missing("email", body.Email), missing("password", body.Password)}
	if body.Email != nil {
		address, err = email.Normalize(*body.Email)
		problems = append(problems, err)
	}
	if body.Password != nil {
		problems = append(problems, models.ValidatePassword("password", *body.Password))
	}
	problems = append(problems, models.ValidateRoles(body.Roles))
	return address, joinInvalid(problems...)
}

// userConflict names the field that a business rule refused.
func userConflict(err error, field string) error {
	switch {
	case errors.Is(err, models.ErrEmailTaken):
		return models.NewProblem("conflict", "This e-mail address is already in use.").With("field", field)
	case errors.Is(err, models.ErrLastAdmin):
		return models.NewProblem("conflict", "Nobody would be left who can manage users. Make another user an administrator first.").With("field", field)
	}
	return err
}

// getUser answers one user.
//
//	@Summary	Read a user (administrators)
//	@Tags		users
//	@Produce	json
//	@Param		id	path		string	true	"user"
//	@Success	200	{object}	models.User
//	@Failure	401,403,404,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/users/{id} [get]
func (h *Handlers) getUser(c *gin.Context) error {
	user, err := h.pathUser(c)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, user)
}

func (h *Handlers) pathUser(c *gin.Context) (models.User, error) {
	id, err := h.plainID(c)
	if err != nil {
		return models.User{}, err
	}
	return h.Accounts.User(c.Request.Context(), id)
}

// changeUser changes a user's roles, password, or whether it is disabled.
//
//	@Summary	Change a user (administrators)
//	@Tags		users
//	@Accept		json
//	@Produce	json
//	@Param		id		path		string			true	"user"
//	@Param		body	body		patchUserBody	true	"one or more fields"
//	@Success	200		{object}	models.User
//	@Failure	400,401,403,404,413,415,422,429,503	{object}	problemDoc
//	@Failure	409	{object}	problemDoc	"conflict: the last administrator"
//	@Security	Bearer
//	@Router		/users/{id} [patch]
func (h *Handlers) changeUser(c *gin.Context) error {
	body, err := decode[patchUserBody](c)
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return err
	}
	if err := checkUserPatch(body); err != nil {
		return err
	}
	user, err := h.Accounts.ChangeUser(c.Request.Context(), signedIn(c).User, id, services.UserChange(body), clientOf(c))
	if err != nil {
		field := "roles"
		if body.Disabled != nil && *body.Disabled {
			field = "disabled"
		}
		return userConflict(err, field)
	}
	return answerJSON(c, http.StatusOK, user)
}

func checkUserPatch(body patchUserBody) error {
	if body.Roles == nil && body.Disabled == nil && body.Password == nil {
		return models.Invalid("body", "must name one or more of roles, disabled, password")
	}
	var problems []error
	if body.Roles != nil {
		problems = append(problems, models.ValidateRoles(body.Roles))
	}
	if body.Password != nil {
		problems = append(problems, models.ValidatePassword("password", *body.Password))
	}
	return joinInvalid(problems...)
}

// deleteUser removes a user, with all sessions and locks.
//
//	@Summary	Delete a user (administrators)
//	@Tags		users
//	@Param		id	path	string	true	"user"
//	@Success	204
//	@Failure	401,403,404,422,429,503	{object}	problemDoc
//	@Failure	409	{object}	problemDoc	"conflict: the last administrator"
//	@Security	Bearer
//	@Router		/users/{id} [delete]
func (h *Handlers) deleteUser(c *gin.Context) error {
	id, err := h.plainID(c)
	if err != nil {
		return err
	}
	if err := h.Accounts.DeleteUser(c.Request.Context(), signedIn(c).User, id, clientOf(c)); err != nil {
		return userConflict(err, "id")
	}
	return noContent(c)
}

// listAudit answers a page of the audit.
//
//	@Summary	The audit, newest first (administrators)
//	@Tags		audit
//	@Produce	json
//	@Param		action	query		string	false	"only this action"
//	@Param		limit	query		int		false	"1 to 200"	default(50)
//	@Param		cursor	query		string	false	"nextCursor of the page before"
//	@Success	200		{object}	auditList
//	@Failure	401,403,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/audit [get]
func (h *Handlers) listAudit(c *gin.Context) error {
	params, err := query(c, "action", "limit", "cursor")
	if err != nil {
		return err
	}
	if action := params["action"]; action != "" && !slices.Contains(models.AuditActions[:], action) {
		return models.Invalid("action", "must be one of "+strings.Join(models.AuditActions[:], ", "))
	}
	wanted, err := page(params)
	if err != nil {
		return err
	}
	entries, err := h.Accounts.AuditPage(c.Request.Context(), params["action"], wanted)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, auditList{Items: items(entries.Items), NextCursor: entries.NextCursor})
}
