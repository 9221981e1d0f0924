package templates

import "time"

// Frame is the part of every page around its content.
type Frame struct {
	Title   string
	Path    string // of the request; the navigation marks where it belongs
	User    *User  // nil when signed out
	Notices []Notice
	Now     time.Time // the server's clock
	// Ends is when the session ends without further activity; the page then clears itself.
	// Zero when signed out.
	Ends time.Time
	// Reload is the URL that a browser with JavaScript loads when the session has ended. "" is the
	// start page.
	Reload string
	// Refresh is the URL that a browser without JavaScript loads after RefreshAfter seconds. "" is
	// none.
	Refresh      string
	RefreshAfter int
	// RetryAfter is the number of seconds after which the page reloads, with and without
	// JavaScript. 0 is never.
	RetryAfter int
}

// User is the signed-in user.
type User struct {
	ID    string
	Email string
	Role  string // in words
	Admin bool
}

// Notice is a message that is shown once, after an action was done or Failed.
type Notice struct {
	Text   string
	Failed bool
	At     time.Time // as that of Lost
}

// SignIn is the sign-in form.
type SignIn struct {
	Frame
	Email string // from the attempt before
	Next  string // the URL of the page that was asked for; "" is the start page
	Note  string // about the action before, such as a sign-out; "" if none
	Error string // "" if there is none
}

// Dashboard is the start page of a signed-in user.
type Dashboard struct {
	Frame
	Table LockTable
	Again string // the URL of the page
}

// Account is what a user sees of the own account.
type Account struct {
	Frame
	Sessions []Session
}

// LockTable is the list of locks, which refreshes itself.
type LockTable struct {
	Now    time.Time
	UserID string // of the reader
	Locks  []Lock
	Count  int  // of the locks on all pages
	Admin  bool // may force, and sees what is of use to administrators only
	Filter
	// Poll is the URL of the next state.
	Poll string
	// First and Next are the links to other pages of the list, "" if there are none.
	First, Next string
	Banner      *Banner
	Missing     bool // the locks cannot be listed now
	MayEdit     bool
	Example     string // shell commands that take a lock, for administrators, while there is none
}

// Filter is which locks the reader wants to see.
type Filter struct {
	Text          string
	Mine, Waiting bool
}

// Any reports whether there is a filter at all.
func (f Filter) Any() bool { return f != Filter{} }

// Partial reports whether there may be locks that the list does not show.
func (t LockTable) Partial() bool {
	return t.Banner != nil || t.Missing || t.Any() || t.First != "" || t.Next != ""
}

// Banner says that the page does not work as usual.
type Banner struct {
	Title, Text string
}

// Lock is one row of the table.
type Lock struct {
	Resource  string
	Href      string // of the page of the process, "" for another resource
	Title     string // of the process, "" if unknown
	Holder    string
	Mine      bool
	Since     time.Time
	ExpiresAt time.Time
	Fence     string // "" if granted without Redis
	Reason    string
	Waiting   int
}

// Session is one of the user's sessions.
type Session struct {
	ID       string
	Device   string // in words
	IP       string
	Begun    time.Time
	LastSeen time.Time
	Current  bool
}

// Users is a page of all users.
type Users struct {
	Frame
	Users []UserRow
	// First and Next are the links to other pages of the list, "" if there are none.
	First, Next string
}

// UserRow is a user with the number of sessions.
type UserRow struct {
	ID, Email, Roles string
	Disabled         bool
	Me               bool // the user who looks at the page
	Sessions         int
}

// UserSessions is the page with the sessions of a user.
type UserSessions struct {
	Frame
	ID, Email string
	Me        bool // the user who looks at the page
	Sessions  []Session
}

// Password is the form for a change of the own password.
type Password struct {
	Frame
	Error string // "" if there is none
	Field string // the field of Error: currentPassword or newPassword, "" for neither
}

// Force asks an administrator whether to end a lock.
type Force struct {
	Frame
	Lock   Lock
	Reason string // from the attempt before
	Error  string // what is wrong with the reason, "" if nothing
}

// Problems lists the problem types.
type Problems struct {
	Frame
	Items []Problem
}

// Problem is one problem type.
type Problem struct {
	Name, Title string
	Status      int
}

// Message is a page with one message.
type Message struct {
	Frame
	Kicker     string // above the heading, such as "404"
	Heading    string
	Paragraphs []string
	RequestID  string // "" if it is of no use to the reader
	Action     string // text of the link to the next page
	Href       string // its target
}
