package models

import (
	"encoding/json"
	"maps"
)

// Problem is an RFC 9457 problem+json document. NewProblem makes those of the table.
type Problem struct {
	Name   string // its type is /problems/<Name>
	Title  string
	Status int
	Detail string
	// OnPage is what a page says instead of Detail, in its users' words. Empty if it says the same.
	OnPage string
	// Members are extra members, such as "errors".
	Members map[string]any
	// Instance and RequestID are filled in when the problem is written.
	Instance  string
	RequestID string
}

// ProblemKind is a row of the table of problems. Help is the text of its help page,
// /problems/<name>: what the problem means and what to do next.
type ProblemKind struct {
	Status int
	Title  string
	Help   string
}

// ProblemKinds is the one table of problems, by name. It does not change.
var ProblemKinds = map[string]ProblemKind{
	"bad-request": {400, "Bad request",
		"The body is not one JSON document in UTF-8, or it is empty where one is required."},
	"unauthenticated": {401, "Sign in first",
		"Send Authorization: Bearer with a token from POST /api/v1/auth/login, or sign in on the " +
			"page. A token ends when it is unused for a while, after its longest life, at sign-out, and " +
			"when a user or an administrator ends it."},
	"invalid-credentials": {401, "Wrong e-mail or password",
		"The address is unknown, the password is wrong, or the account is disabled. An administrator " +
			"can set a new password."},
	"forbidden": {403, "Not allowed",
		"Your roles do not include this. Viewers read; editors also lock, create and edit; " +
			"administrators also force locks and manage users. Or requests from your address are refused " +
			"altogether."},
	"cross-origin": {403, "Request from another site",
		"A browser sent this from a page of another origin. Use the page of this server, or a Bearer " +
			"token."},
	"not-found": {404, "Not found",
		"There is nothing at this address, or no longer."},
	"method-not-allowed": {405, "Method not allowed",
		"The Allow header lists the methods of this address."},
	"lock-not-held": {409, "You do not hold the lock",
		"The lock token is not, or no longer, the holder's: the lock expired, was released, forced, " +
			"taken over or given away, or the token belongs to another process or user. The member endedBy " +
			"says how the lock ended, by whom, why and when, for 24 hours, and so does GET " +
			"/api/v1/refusals/{requestId}. Lock the process again and look at its current state before you " +
			"write."},
	"version-conflict": {409, "Another write came in between",
		"Nothing was overwritten. The member current is the process as it is now: merge your change " +
			"into it and lock again. GET /api/v1/refusals/{requestId} says so again for 24 hours."},
	"conflict": {409, "Conflict",
		"The member field says what does not fit: the e-mail address is already in use, the change would " +
			"leave no administrator, a lock that is asked for is free or your own, or a request for a lock " +
			"has been answered."},
	"precondition-failed": {412, "Not the current version",
		"If-Match names another version than the current one. The member current is the process as it " +
			"is now; GET /api/v1/refusals/{requestId} says so again for 24 hours. Of a draft: it was saved " +
			"after the time in If-Unmodified-Since, perhaps in another window; current is the stored draft."},
	"content-too-large": {413, "Body too large",
		"A body has at most 1 MiB, a form of the page at most 64 KiB, or 1 MiB with a process in it."},
	"unsupported-media-type": {415, "Unsupported media type",
		"Send the body as Content-Type: application/json. The forms of the page are " +
			"application/x-www-form-urlencoded; multipart is not taken."},
	"validation": {422, "Invalid input",
		"The member errors names each field and what is wrong with it."},
	"locked": {423, "Already locked",
		"The member holder says who has the lock and since when. Try again after Retry-After seconds, " +
			"or queue with Prefer: wait=30. Your own lock, and that of a holder who is away, you can take " +
			"over; the member takeOverAt says when."},
	"lock-token-required": {428, "Lock token required",
		"Lock the process first (POST .../lock) and send the lockToken it answers as X-Lock-Token."},
	"too-many-locks": {429, "Too many locks",
		"You have as many processes locked as one user can have at a time; the member limit says how " +
			"many. Give one back first, or let one end."},
	"quota-exceeded": {429, "Too many requests",
		"Wait for Retry-After seconds. The RateLimit headers say what is left."},
	"too-many-streams": {429, "Too many event streams",
		"A user may have only so many event streams open at one instance (the member limit, " +
			"STREAMS_PER_USER), and an instance only as many as its limit of open files allows. Close one " +
			"that is not needed."},
	"unavailable": {503, "Not available now",
		"The database cannot be asked, or what the servers share cannot and the configuration refuses " +
			"to work without it, or the server is shutting down. Nothing was changed unless you were told " +
			"so; try again after Retry-After seconds."},
	"internal": {500, "Internal error",
		"This is a fault of the server. Report it with the requestId."},
}

// NewProblem returns a problem of the table; detail says what happened and what to do next. It
// panics on a name that is not in the table: that is a mistake in the program.
func NewProblem(name, detail string) Problem {
	kind, ok := ProblemKinds[name]
	if !ok {
		panic("models.NewProblem: no kind " + name)
	}
	return Problem{Name: name, Title: kind.Title, Status: kind.Status, Detail: detail}
}

// With returns a copy of the problem with one more member.
func (p Problem) With(member string, value any) Problem {
	members := map[string]any{member: value}
	maps.Copy(members, p.Members)
	p.Members = members
	return p
}

// Error is the detail. It makes a problem an error that a handler can return.
func (p Problem) Error() string { return p.Detail }

// MarshalJSON writes the standard members and the extra ones side by side.
func (p Problem) MarshalJSON() ([]byte, error) {
	doc := map[string]any{
		"type": "/problems/" + p.Name, "title": p.Title, "status": p.Status, "detail": p.Detail,
		"instance": p.Instance, "requestId": p.RequestID,
	}
	maps.Copy(doc, p.Members)
	return json.Marshal(doc)
}
