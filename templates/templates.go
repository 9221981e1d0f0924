// Package templates renders the pages of gatehouse and has the files that they load, all embedded
// in the program. Pages work without JavaScript; with it the table of locks refreshes by
// itself. No script and no style is inline, and pages load nothing from other sites, so the
// strictest Content-Security-Policy fits them.
package templates

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"path"
	"strings"
	"time"
)

//go:embed *.html
var pageFiles embed.FS

//go:embed static/*
var staticFiles embed.FS

// Pages renders pages. It is safe for concurrent use.
type Pages struct {
	views  map[string]*template.Template
	assets map[string]Asset
}

// New parses the embedded pages. An error means a mistake in one of them.
func New() (*Pages, error) {
	p := &Pages{views: map[string]*template.Template{}, assets: map[string]Asset{}}
	static, err := fs.Sub(staticFiles, "static")
	if err != nil {
		return nil, fmt.Errorf("static files: %w", err)
	}
	if p.assets, err = readAssets(static); err != nil {
		return nil, fmt.Errorf("static files: %w", err)
	}
	functions := template.FuncMap{
		"asset":  p.assetURL,
		"iso":    func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"exact":  exact,
		"millis": func(t time.Time) int64 { return t.UnixMilli() },
		"stamp":  stamp,
		"left":   left,
		"at":     func(now, t time.Time) moment { return moment{now, t} },
		"number": number,
		"here":   here,
		"clock":  Clock,
		"on":     on,
		"ago":    ago,
		"timed":  timedText,
		"decide": func(page Conflict, field ConflictField) decision { return decision{page, field} },

		"wordsFor": wordsFor,
	}
	shared, err := template.New("shared").Funcs(functions).Option("missingkey=error").
		ParseFS(pageFiles, "layout.html", "locks.html", "words.html", "fields.html")
	if err != nil {
		return nil, fmt.Errorf("page layout: %w", err)
	}
	names, err := fs.Glob(pageFiles, "page_*.html")
	if err != nil {
		return nil, fmt.Errorf("pages: %w", err)
	}
	for _, name := range names {
		page, err := shared.Clone()
		if err == nil {
			page, err = page.ParseFS(pageFiles, name)
		}
		if err != nil {
			return nil, fmt.Errorf("page %s: %w", name, err)
		}
		p.views[path.Base(name)] = page
	}
	return p, nil
}

// SignIn renders the sign-in form.
func (p *Pages) SignIn(v SignIn) ([]byte, error) { return p.render("page_sign_in.html", "layout", v) }

// Dashboard renders the locks.
func (p *Pages) Dashboard(v Dashboard) ([]byte, error) {
	return p.render("page_dashboard.html", "layout", v)
}

// LockTable renders the part of the dashboard that refreshes itself.
func (p *Pages) LockTable(v LockTable) ([]byte, error) {
	return p.render("page_dashboard.html", "locks", v)
}

// Account renders the user's sessions.
func (p *Pages) Account(v Account) ([]byte, error) { return p.render("page_account.html", "layout", v) }

// Password renders the form for a change of the own password.
func (p *Pages) Password(v Password) ([]byte, error) {
	return p.render("page_password.html", "layout", v)
}

// Force renders the confirmation before a lock is forced.
func (p *Pages) Force(v Force) ([]byte, error) { return p.render("page_force.html", "layout", v) }

// Users renders all users, for administrators.
func (p *Pages) Users(v Users) ([]byte, error) { return p.render("page_users.html", "layout", v) }

// UserSessions renders the sessions of a user, for administrators.
func (p *Pages) UserSessions(v UserSessions) ([]byte, error) {
	return p.render("page_user_sessions.html", "layout", v)
}

// ProcessList renders the list of processes.
func (p *Pages) ProcessList(v ProcessList) ([]byte, error) {
	return p.render("page_processes.html", "layout", v)
}

// NewProcess renders the form for a new process.
func (p *Pages) NewProcess(v ProcessForm) ([]byte, error) {
	return p.render("page_process_new.html", "layout", v)
}

// Process renders a process to read.
func (p *Pages) Process(v Process) ([]byte, error) { return p.render("page_process.html", "layout", v) }

// Edit renders the form on which a process is edited.
func (p *Pages) Edit(v Edit) ([]byte, error) { return p.render("page_edit.html", "layout", v) }

// Unsaved renders a text that its writer may not save any more.
func (p *Pages) Unsaved(v Unsaved) ([]byte, error) { return p.render("page_unsaved.html", "layout", v) }

// Conflict renders the choice between two texts.
func (p *Pages) Conflict(v Conflict) ([]byte, error) {
	return p.render("page_conflict.html", "layout", v)
}

// History renders what was done to a process.
func (p *Pages) History(v History) ([]byte, error) { return p.render("page_history.html", "layout", v) }

// Refusal renders why a save was refused.
func (p *Pages) Refusal(v Refusal) ([]byte, error) { return p.render("page_refusal.html", "layout", v) }

// Problems renders the list of problem types.
func (p *Pages) Problems(v Problems) ([]byte, error) {
	return p.render("page_problems.html", "layout", v)
}

// Message renders a page with one message: an error, or the help about one.
func (p *Pages) Message(v Message) ([]byte, error) { return p.render("page_message.html", "layout", v) }

func (p *Pages) render(page, block string, view any) ([]byte, error) {
	var b bytes.Buffer
	if err := p.views[page].ExecuteTemplate(&b, block, view); err != nil {
		return nil, fmt.Errorf("render %s: %w", page, err)
	}
	return b.Bytes(), nil
}

// decision is a field of a conflict with the page around it.
type decision struct {
	Page  Conflict
	Field ConflictField
}

// moment is a time relative to now.
type moment struct{ Now, At time.Time }

// stamp is a time for browsers without JavaScript, shorter if it is today.
func stamp(now, t time.Time) string {
	now, t = now.UTC(), t.UTC()
	if now.YearDay() == t.YearDay() && now.Year() == t.Year() {
		return t.Format("15:04:05 UTC")
	}
	return t.Format("2 Jan 2006, 15:04 UTC")
}

// left is the time from now until t in words, as static/app.js writes it.
func left(now, t time.Time) string {
	seconds := int64(t.Sub(now)+time.Second-1) / int64(time.Second)
	switch {
	case seconds <= 0:
		return "ending"
	case seconds >= 3600:
		return fmt.Sprintf("%d h %02d min", seconds/3600, seconds/60%60)
	case seconds >= 60:
		return fmt.Sprintf("%d min %02d s", seconds/60, seconds%60)
	}
	return fmt.Sprintf("%d s", seconds)
}

// here is the value of aria-current for a link of the navigation: "page" on the page itself, "true"
// on one that belongs to it, "" elsewhere. The start page is that of the locks.
func here(path, link string) string {
	switch {
	case path == link || link == "/" && path == "/dashboard/locks":
		return "page"
	case link == "/" && strings.HasPrefix(path, "/locks/"), link == "/account" && path == "/password",
		link != "/" && strings.HasPrefix(path, link+"/"):
		return "true"
	}
	return ""
}

// number is n and a noun, in the plural unless n is 1.
func number(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
