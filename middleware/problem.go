package middleware

import (
	"encoding/json"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// WriteProblem answers with p as application/problem+json and aborts: no later
// handler runs. Instance and RequestID are taken from the request and the
// answer's X-Request-Id. It is the only renderer of errors. If an answer was
// begun already it only aborts.
func WriteProblem(c *gin.Context, p models.Problem) {
	c.Abort()
	if c.Writer.Written() {
		return
	}
	p.Instance = c.Request.URL.Path
	p.RequestID = c.Writer.Header().Get("X-Request-Id")
	body, err := json.Marshal(p)
	if err != nil { // a member that JSON cannot say: the rest still helps
		_ = c.Error(err)
		p.Members = nil
		body, _ = json.Marshal(p)
	}
	c.Header("Cache-Control", "no-store")
	c.Data(p.Status, "application/problem+json", body)
}
