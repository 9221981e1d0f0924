package handlers

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services"
)

// refusalAnswer is why a request was refused. Holder, endedBy and current are as they were then.
type refusalAnswer struct {
	At       time.Time       `json:"at"`
	Status   int             `json:"status"`
	Type     string          `json:"type" example:"/problems/version-conflict"`
	Resource string          `json:"resource" example:"process:42"`
	Holder   json.RawMessage `json:"holder,omitempty" swaggertype:"object"`
	EndedBy  json.RawMessage `json:"endedBy,omitempty" swaggertype:"object"`
	Current  *models.Process `json:"current,omitempty"`
	Detail   string          `json:"detail"`
}

// getRefusal answers why a request was refused.
//
//	@Summary		Why was my request refused?
//	@Description	A 409, 412, 423 or 428 of a write or a lock, for 24 h, by the X-Request-Id of its answer. Administrators can read everybody's. holder, endedBy and current are as they were then.
//	@Tags			history
//	@Produce		json
//	@Param			id	path		string	true	"X-Request-Id of the answer"
//	@Success		200	{object}	refusalAnswer
//	@Failure		401,403,404,422,429,503	{object}	problemDoc
//	@Security		Bearer
//	@Router			/refusals/{id} [get]
func (h *Handlers) getRefusal(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	id := c.Param("id")
	if !models.IsName(id, "._-") {
		return models.Invalid("requestId", "must be 1 to 64 of A-Z a-z 0-9 . _ -")
	}
	session := signedIn(c)
	refusal, current, err := h.Recorder.Refusal(c.Request.Context(), session.User, models.HasRole(session.Roles, models.RoleAdmin), id)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, refusalAnswer{
		At: refusal.At, Status: refusal.Status, Type: "/problems/" + refusal.Type, Resource: refusal.Resource,
		Holder: refusal.Holder, EndedBy: refusal.EndedBy, Current: current, Detail: refusal.Detail,
	})
}

// noteRefusal records a problem by which a write or a lock was refused, as it is going to be
// answered.
func (h *Handlers) noteRefusal(c *gin.Context, p models.Problem) {
	switch p.Status {
	case http.StatusConflict, http.StatusPreconditionFailed, http.StatusLocked, http.StatusPreconditionRequired:
	default:
		return
	}
	resource, save := refusable(c)
	if resource == "" {
		return
	}
	refusal := models.Refusal{
		RequestID: middleware.RequestIDFrom(c), User: signedIn(c).User, At: time.Now(), Status: p.Status, Type: p.Name, Resource: resource,
		Save: save && (p.Status == http.StatusConflict || p.Status == http.StatusPreconditionFailed), Detail: p.Detail,
		Holder: member(p, "holder"), EndedBy: member(p, "endedBy"),
	}
	if current, ok := p.Members["current"].(models.Process); ok {
		refusal.Version = current.Version
	}
	h.Recorder.Refused(refusal)
}

// saves are the paths below a process, of the API and of the pages, that make a version of it.
var saves = [...]string{"/quick-update", "/restore", "/edit/save", "/edit/resolve"}

// refusable is what the request would have locked or changed, "" if it is of another kind, and
// whether it would have made a version of it.
func refusable(c *gin.Context) (resource string, save bool) {
	pattern := strings.TrimPrefix(c.FullPath(), "/api/v1")
	rest, ofProcess := strings.CutPrefix(pattern, "/processes/:id")
	switch {
	case ofProcess && rest != "/draft":
		return services.Resource(c.Param("id")), c.Request.Method == http.MethodPut || slices.Contains(saves[:], rest)
	case pattern == "/locks/:resource":
		return c.Param("resource"), false
	}
	return "", false
}

// member is a member of a problem as it is answered; nil if it has none.
func member(p models.Problem, name string) json.RawMessage {
	value, ok := p.Members[name]
	if !ok {
		return nil
	}
	text, err := json.Marshal(value)
	if err != nil {
		return nil
	}
	return text
}
