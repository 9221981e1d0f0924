package models

import "time"

// AuditEntry is one security event. Actor and Target are e-mail addresses, or names such as
// "user:3" and "process:42"; never a token.
type AuditEntry struct {
	At        time.Time `json:"at"`
	Action    string    `json:"action"`
	Actor     string    `json:"actor"`
	Target    string    `json:"target"`
	IP        string    `json:"ip"`
	RequestID string    `json:"requestId"`
	Detail    string    `json:"detail"`
}

// The actions in the audit.
const (
	AuditSignIn          = "sign-in"
	AuditSignInFailed    = "sign-in-failed"
	AuditSignInNewPlace  = "sign-in-new-place" // beside a sign-in, if its network is not known for the account
	AuditSignInLimited   = "sign-in-limited"   // a limit refused a sign-in or a change of password: once a key and window
	AuditSignOut         = "sign-out"
	AuditPasswordChanged = "password-changed"
	AuditSessionRevoked  = "session-revoked"
	AuditSessionsRevoked = "sessions-revoked"
	AuditLockForced      = "lock-forced"
	AuditLockTakenOver   = "lock-taken-over"
	AuditLockAsked       = "lock-asked"             // a user asks for it
	AuditLockAnswered    = "lock-request-answered"  // "later" or "no"
	AuditLockWithdrawn   = "lock-request-withdrawn" // by the asker
	AuditLockGiven       = "lock-given"             // to a user who asked for it
	AuditRequestEnded    = "lock-request-ended"     // by itself, as if it is not fetched in time
	AuditUserCreated     = "user-created"
	AuditUserChanged     = "user-changed"
	AuditUserDeleted     = "user-deleted"
)

// AuditActions are all actions. It does not change.
var AuditActions = [...]string{
	AuditSignIn, AuditSignInFailed, AuditSignInNewPlace, AuditSignInLimited, AuditSignOut, AuditPasswordChanged, AuditSessionRevoked,
	AuditSessionsRevoked, AuditLockForced, AuditLockTakenOver,
	AuditLockAsked, AuditLockAnswered, AuditLockWithdrawn, AuditLockGiven, AuditRequestEnded, AuditUserCreated, AuditUserChanged, AuditUserDeleted,
}
