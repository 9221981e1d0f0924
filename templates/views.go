package templates

import "time"

// Frame is what every page has around its content.
type Frame struct {
	Title   string
	User    *User // nil when signed out
	Notices []Notice
	Now     time.Time // the server's clock
	// Ends is when the session ends if nothing more happens; the page then clears
	// itself. Zero when signed out.
	Ends time.Time
	// Reload is where a browser without JavaScript goes again every 10 s, and one
	// with it when the session has ended. "" is nowhere.
	Reload string
	// RetryAfter reloads the page in so many seconds, with and without
	// JavaScript. 0 never does.
	RetryAfter int
}

// User is who is signed in.
type User struct {
	Email string
	Role  string // in words
	Admin bool
}

// Notice is a message shown once, after something was done or failed.
type Notice struct {
	Text   string
	Failed bool
}

// SignIn is the sign-in form.
type SignIn struct {
	Frame
	Email string // kept from the attempt before
	Note  string // what was done before, such as signing out; "" if nothing
	Error string // "" if there is none
}

// Dashboard is the start page of a signed-in user.
type Dashboard struct {
	Frame
	Table    LockTable
	Sessions []Session
}

// LockTable is the list of locks, refreshed every 2 s.
type LockTable struct {
	Now   time.Time
	Locks []Lock
	Admin bool // may force
	// Poll is where the next state comes from.
	Poll string
	// First and Next are the links to other pages of the list, "" if there are none.
	First, Next string
	Banner      *Banner
	Missing     bool   // the locks cannot be listed now
	Example     string // shell commands that lock something, "" for who may not
}

// Banner says that something works, but not as usual.
type Banner struct {
	Title, Text string
}

// Lock is one row of the table.
type Lock struct {
	Resource  string
	Title     string // of the process, "" if not known
	Holder    string
	Mine      bool
	Since     time.Time
	ExpiresAt time.Time
	Fence     string // "" when granted without Redis
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

// UserRow is one user and how many sessions there are.
type UserRow struct {
	ID, Email, Roles string
	Disabled         bool
	Me               bool // who looks at the page
	Sessions         int
}

// UserSessions is where one user is signed in.
type UserSessions struct {
	Frame
	ID, Email string
	Me        bool // who looks at the page
	Sessions  []Session
}

// Password is the form to change one's own password.
type Password struct {
	Frame
	Error string // "" if there is none
	Field string // that it is about: currentPassword or newPassword, "" for neither
}

// Force asks an administrator whether to end a lock.
type Force struct {
	Frame
	Lock   Lock
	Reason string // kept from the attempt before
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

// Message is a page that says one thing.
type Message struct {
	Frame
	Kicker     string // above the heading, such as "404"
	Heading    string
	Paragraphs []string
	RequestID  string // "" if it helps nobody
	Action     string // the text of the link onwards
	Href       string // its target
}
