package middleware

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// SameOrigin answers 403 to unsafe requests that a browser sent from a page of
// another origin: with the cookie they would act for whoever is signed in. It is
// net/http's CrossOriginProtection, and stricter in one point: when publicURL is https,
// an http page of the same host is another origin also to browsers that send no
// Sec-Fetch-Site. publicURL is the origin that browsers see, which differs from the Host
// header behind some proxies; what proxies forward is not looked at. A request with a
// Bearer token passes: no browser adds one by itself. It panics on a publicURL
// that is not an origin.
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

// fromPlainPage reports whether an unsafe request comes from a page without https, as far
// as its Origin tells: net/http compares nothing but the host.
func fromPlainPage(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	origin := r.Header.Get("Origin")
	return origin != "" && r.Header.Get("Sec-Fetch-Site") == "" && !strings.HasPrefix(origin, "https://")
}

// asOrigin is a URL as browsers write it in Origin: the host in small letters, without
// the port that goes without saying.
func asOrigin(publicURL string) string {
	u, err := url.Parse(publicURL)
	if err != nil {
		return publicURL // told by AddTrustedOrigin
	}
	u.Host = strings.ToLower(u.Host)
	usual := map[string]string{"http": ":80", "https": ":443"}
	u.Host = strings.TrimSuffix(u.Host, usual[u.Scheme])
	return u.String()
}
