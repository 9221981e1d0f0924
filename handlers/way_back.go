package handlers

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/gin-gonic/gin"
)

// leftOpen ends the address under which an open page asks for itself, once its session must have
// ended. If another tab has kept that alive, the page is shown again. It is no activity of the user:
// two tabs left open would keep a session alive for ever.
const leftOpen = "left-open=true"

type leftOpenKey struct{}

// noteLeftOpen notes such a request for refreshesItself. To later handlers it is as any other.
func noteLeftOpen(c *gin.Context) {
	if query, ok := strings.CutSuffix(c.Request.URL.RawQuery, leftOpen); ok {
		c.Request.URL.RawQuery = strings.TrimSuffix(query, "&")
		c.Set(leftOpenKey{}, true)
	}
}

// addressOf is the path and the query of the page that a request asks for; "" if it asks for none,
// as a form does.
func addressOf(c *gin.Context) string {
	if c.Request.Method != http.MethodGet || c.FullPath() == "" {
		return ""
	}
	return c.Request.URL.RequestURI()
}

// reloadOf is where a page asks for itself; "" if it answers a form.
func reloadOf(c *gin.Context) string {
	address := addressOf(c)
	switch {
	case address == "":
		return ""
	case strings.Contains(address, "?"):
		return address + "&" + leftOpen
	}
	return address + "?" + leftOpen
}

// maxNext is how many bytes an address may have to which a sign-in leads.
const maxNext = 500

// wayBack is where a sign-in leads that was asked for at an address: there, if it is a page of this
// site, or else to the start page.
func wayBack(next string) string {
	address, err := url.Parse(next) // which refuses control characters
	if err != nil || len(next) > maxNext || address.Scheme != "" || address.Host != "" || !asksToSignIn(address.Path) {
		return "/"
	}
	return address.RequestURI()
}

// asksToSignIn reports whether there is a page at a path, to be opened, for users who are signed in.
func asksToSignIn(path string) bool {
	switch path {
	case "/", accountRoute, passwordRoute, usersRoute, "/users/sessions", "/locks/force", processesRoute, refusalsRoute:
		return true
	}
	of, ok := strings.CutPrefix(path, processesRoute+"/")
	id, page, below := strings.Cut(of, "/")
	return ok && isID(id) && (!below || page == "history" || page == "edit")
}
