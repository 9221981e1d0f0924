package middleware

import (
	"encoding/json"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

type showKey struct{}

// ShowProblems lets show answer the problems of all handlers after it, as pages do that
// people read. What show itself writes with WriteProblem is JSON. It panics without
// show: that is a mistake in the program.
func ShowProblems(show func(c *gin.Context, p models.Problem)) gin.HandlerFunc {
	mustHave("ShowProblems", "show", show)
	return func(c *gin.Context) {
		c.Set(showKey{}, show)
		defer c.Set(showKey{}, nil)
		c.Next()
	}
}

// refuseUnavailable answers 503 for what may be asked again in a second.
func refuseUnavailable(c *gin.Context, detail string) {
	c.Header("Retry-After", "1")
	WriteProblem(c, models.NewProblem("unavailable", detail))
}

// WriteProblem answers with p as application/problem+json, or as ShowProblems shows it,
// and aborts: no later handler runs. Instance and RequestID are taken from the request
// and the answer's X-Request-Id. If an answer was begun already it only aborts.
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
	if err != nil { // a member that JSON cannot say: the rest still helps
		_ = c.Error(err)
		p.Members = nil
		body, _ = json.Marshal(p)
	}
	c.Header("Cache-Control", "no-store")
	c.Data(p.Status, "application/problem+json", body)
}
