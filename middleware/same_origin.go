package middleware

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// SameOrigin answers 403 to unsafe requests that a browser sent from a page of
// another origin: with the cookie they would act for whoever is signed in. It is
// net/http's CrossOriginProtection; publicURL is the origin that browsers see,
// which differs from the Host header behind some proxies. A request with a
// Bearer token passes: no browser adds one by itself. It panics on a publicURL
// that is not an origin.
func SameOrigin(publicURL string) gin.HandlerFunc {
	protection := http.NewCrossOriginProtection()
	if err := protection.AddTrustedOrigin(publicURL); err != nil {
		panic("middleware.SameOrigin: " + err.Error())
	}
	return func(c *gin.Context) {
		if _, bearer := bearerToken(c.Request.Header); bearer {
			return
		}
		if err := protection.Check(c.Request); err != nil {
			WriteProblem(c, models.Problem{
				Name: "cross-origin", Title: "Request from another site", Status: http.StatusForbidden,
				Detail: "A page of another origin sent this. Use the page of this server, or a Bearer token.",
			})
		}
	}
}
