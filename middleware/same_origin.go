package middleware

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// SameOrigin answers 403 cross-origin to unsafe requests that a browser sent from a page of
// another origin: the cookie would let them act for the signed-in user. A request with a
// Bearer token passes, because no browser adds one by itself.
//
// publicURL is the origin that browsers see; behind some proxies that is not the Host header.
// Forwarded headers are ignored. It panics on a publicURL that is not an origin.
//
// It is net/http's CrossOriginProtection with one stricter point. If publicURL is https, an
// http page of the same host is another origin even for browsers without Sec-Fetch-Site.
func SameOrigin(publicURL string) gin.HandlerFunc {
	protection := http.NewCrossOriginProtection()
	if err := protection.AddTrustedOrigin(asOrigin(publicURL)); err != nil {
		panic("middleware.SameOrigin: " + err.Error())
	}
	https := strings.HasPrefix(publicURL, "https://")
	return func(c *gin.Context) {
		if _, bearer := bearerToken(c.Request.Header); bearer {
			return
		}
		if protection.Check(c.Request) != nil || https && fromPlainPage(c.Request) {
			WriteProblem(c, models.NewProblem("cross-origin", "A page of another origin sent this. Use the page of this server, or a Bearer token."))
		}
	}
}

// fromPlainPage reports whether an unsafe request comes from a page without https, by its
// Origin: net/http compares only the host of that.
func fromPlainPage(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	origin := r.Header.Get("Origin")
	return origin != "" && r.Header.Get("Sec-Fetch-Site") == "" && !strings.HasPrefix(origin, "https://")
}

// asOrigin is a URL as browsers write it in Origin: the host in lower case, without the
// default port.
func asOrigin(publicURL string) string {
	u, err := url.Parse(publicURL)
	if err != nil {
		return publicURL // AddTrustedOrigin reports it
	}
	u.Host = strings.ToLower(u.Host)
	usual := map[string]string{"http": ":80", "https": ":443"}
	u.Host = strings.TrimSuffix(u.Host, usual[u.Scheme])
	return u.String()
}
