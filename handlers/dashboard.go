package handlers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/templates"
)

const (
	lockTableRoute = "/dashboard/locks"
	locksPerPage   = 50
	// titlesTimeout limits the look-up of a title: the page is useful without it.
	titlesTimeout = 300 * time.Millisecond
)

// home is the dashboard, or the sign-in form.
func (h *Handlers) home(c *gin.Context) error {
	if err := middleware.SessionError(c); err != nil {
		return err
	}
	if session, ok := middleware.SessionFrom(c); ok {
		return h.showDashboard(c, session)
	}
	return h.showSignIn(c, http.StatusOK, templates.SignIn{})
}

func (h *Handlers) showDashboard(c *gin.Context, session models.Session) error {
	table, _, err := h.tableOf(c, session)
	if err != nil {
		return err
	}
	view := templates.Dashboard{Frame: h.frame(c, "Locks"), Table: table}
	view.Notices = notices(c)
	view.Again = locksLink("/", table.Filter, "cursor", c.Query("cursor"))
	if len(view.Notices) == 0 { // they would be gone before they are read
		view.Refresh, view.RefreshAfter = locksLink(lockTableRoute, table.Filter, "cursor", c.Query("cursor")), 60
	}
	html, err := h.Pages.Dashboard(view)
	return h.page(c, http.StatusOK, html, err)
}

// lockTable refreshes an open dashboard; it does not count as activity of the user. The script
// of the page gets the table of locks, or 204 if the page shows that state already: the page
// moves only if something has changed. A browser without JavaScript gets the whole page.
func (h *Handlers) lockTable(c *gin.Context) error {
	session := signedIn(c)
	if !isScript(c) {
		return h.showDashboard(c, session)
	}
	table, state, err := h.tableOf(c, session)
	if err != nil {
		return err
	}
	if c.Query("seen") == state {
		return noContent(c)
	}
	html, err := h.Pages.LockTable(table)
	return h.page(c, http.StatusOK, html, err)
}

// tableOf lists the locks that the URL asks for. state identifies what the table shows.
func (h *Handlers) tableOf(c *gin.Context, session models.Session) (table templates.LockTable, state string, err error) {
	cursor := c.Query("cursor")
	params := map[string]string{"cursor": cursor, "q": strings.ToValidUTF8(c.Query("q"), "")}
	for _, name := range []string{"mine", "waiting"} {
		if value := c.Query(name); value != "" {
			params[name] = value
		}
	}
	wanted, err := lockQuery(params)
	if err != nil {
		return table, "", err
	}
	wanted.Limit = locksPerPage
	locks, err := h.Processes.Locks(c.Request.Context(), session.User, wanted)
	missing := errors.Is(err, models.ErrUnavailable)
	if err != nil && !missing {
		return table, "", err
	}
	setLocksDegraded(c, locks.Degraded || missing)
	table = templates.LockTable{
		Now: time.Now(), UserID: session.User.ID, Count: locks.Count, Admin: models.HasRole(session.Roles, models.RoleAdmin), MayEdit: models.HasRole(session.Roles, models.RoleEditor), Missing: missing,
		Filter: templates.Filter{Text: wanted.Text, Mine: wanted.Mine, Waiting: wanted.Waiting}, Banner: h.partialBanner(locks.Degraded || missing, listPartial),
	}
	for _, lock := range locks.Items {
		shown := shownLock(lock.LockStatus, session)
		shown.Title = lock.Title
		table.Locks = append(table.Locks, shown)
	}
	if cursor != "" {
		table.First = locksLink("/", table.Filter)
	}
	if locks.NextCursor != nil {
		table.Next = locksLink("/", table.Filter, "cursor", *locks.NextCursor)
	}
	if len(table.Locks) == 0 && table.Admin {
		table.Example = h.lockExample(session.User.Email)
	}
	state = stateOf(table)
	table.Poll = locksLink(lockTableRoute, table.Filter, "seen", state, "cursor", cursor)
	return table, state, nil
}

// locksLink is a link to the locks of a filter.
func locksLink(path string, filter templates.Filter, more ...string) string {
	word := map[bool]string{true: "true"}
	return link(path, append([]string{"q", filter.Text, "mine", word[filter.Mine], "waiting", word[filter.Waiting]}, more...)...)
}

// link is path with parameters: pairs of a name and a value. It drops those without a value.
func link(path string, parameters ...string) string {
	query := url.Values{}
	for i := 0; i+1 < len(parameters); i += 2 {
		if parameters[i+1] != "" {
			query.Set(parameters[i], parameters[i+1])
		}
	}
	if len(query) == 0 {
		return path
	}
	return path + "?" + query.Encode()
}

// stateOf identifies what a table shows, apart from the clock.
func stateOf(table templates.LockTable) string {
	table.Now = time.Time{}
	doc, _ := json.Marshal(table) // strings, numbers and times
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:8])
}

func shownLock(lock models.LockStatus, session models.Session) templates.Lock {
	shown := templates.Lock{
		Resource: lock.Resource, Holder: lock.Holder.Email, Mine: lock.Holder.UserID == session.User.ID,
		Since: lock.Holder.Since,
		// Redis knows the time left, so this moves by milliseconds from read to read.
		ExpiresAt: lock.ExpiresAt.Truncate(time.Second),
		Reason:    lock.Holder.Reason, Waiting: lock.Waiting,
	}
	if shown.Holder == "" {
		shown.Holder = "user " + lock.Holder.UserID
	}
	if id, ok := strings.CutPrefix(lock.Resource, services.Resource("")); ok {
		shown.Href = "/processes/" + id
	}
	if lock.Fence != nil {
		shown.Fence = strconv.FormatInt(*lock.Fence, 10)
	}
	return shown
}

func (h *Handlers) titleOf(ctx context.Context, resource string) string {
	id, ok := strings.CutPrefix(resource, "process:")
	if !ok || ctx.Err() != nil {
		return ""
	}
	process, err := h.Processes.Process(ctx, id)
	if err != nil {
		return "" // the process is deleted, or the database is slow
	}
	return process.Title
}

// What a page says of itself while the servers do not share their locks: its readers are office
// users, who know neither servers nor Redis.
const (
	listPartial   = "This list may not show everybody who is editing."
	readerPartial = "Someone may be editing this although it is not shown here."
	editorPartial = "Someone else may be editing this at the same time."
)

// partialBanner says so, and what that means for a save; nil while the servers share their locks.
func (h *Handlers) partialBanner(degraded bool, partial string) *templates.Banner {
	const safe = "No text gets lost by that: whoever saves second is shown both texts before anything is overwritten. "
	switch status := h.Redis.Status(); {
	case status == "disabled":
		return &templates.Banner{Title: partial, Text: safe + "It was set up like that."}
	case status == "down" || degraded:
		return &templates.Banner{Title: partial, Text: safe + "This passes by itself."}
	}
	return nil
}

// lockExample is a shell script that makes a lock appear on the page.
func (h *Handlers) lockExample(email string) string {
	login, _ := json.Marshal(map[string]string{"email": email, "password": "YOUR PASSWORD"})
	return strings.Join([]string{
		"API=" + h.PublicURL + "/api/v1",
		"TOKEN=$(curl -s $API/auth/login -H 'Content-Type: application/json' \\",
		"  -d " + shellQuote(string(login)) + " | grep -o '\"token\":\"[^\"]*' | cut -d'\"' -f4)",
		"ID=$(curl -s $API/processes -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\",
		"  -d '{\"title\": \"My first process\"}' | grep -o '\"id\":\"[^\"]*' | head -1 | cut -d'\"' -f4)",
		"curl -s -X POST $API/processes/$ID/lock -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\",
		"  -d '{\"ttl\": 300, \"reason\": \"trying it out\"}'",
	}, "\n")
}

func shellQuote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
