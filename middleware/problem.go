package middleware

import (
	"encoding/json"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

type showKey struct{}

// ShowProblems lets show answer the problems of all later handlers, for example as a page.
// WriteProblem within show writes JSON. It panics without show: that is a mistake in the
// program.
func ShowProblems(show func(c *gin.Context, p models.Problem)) gin.HandlerFunc {
	mustHave("ShowProblems", "show", show)
	return func(c *gin.Context) {
		c.Set(showKey{}, show)
		defer c.Set(showKey{}, nil)
		c.Next()
	}
}

// refuseUnavailable answers 503; the client may try again in a second.
func refuseUnavailable(c *gin.Context, detail string) {
	c.Header("Retry-After", "1")
	WriteProblem(c, models.NewProblem("unavailable", detail))
}

// WriteProblem answers with p as application/problem+json, or in the way of ShowProblems, and
// aborts: no later handler runs. It fills in Instance from the request and RequestID from
// the answer's X-Request-Id. If the answer has begun already it only aborts.
func WriteProblem(c *gin.Context, p models.Problem) {
	c.Abort()
	if c.Writer.Written() {
		return
	}
	p.Instance = c.Request.URL.Path
	p.RequestID = RequestIDFrom(c)
	value, _ := c.Get(showKey{})
	if show, ok := value.(func(*gin.Context, models.Problem)); ok {
		c.Set(showKey{}, nil)
		show(c, p)
		return
	}
	body, err := json.Marshal(p)
	if err != nil { // a member cannot be encoded: answer without members
		_ = c.Error(err)
		p.Members = nil
		body, _ = json.Marshal(p)
	}
	c.Header("Cache-Control", "no-store")
	c.Data(p.Status, "application/problem+json", body)
}
