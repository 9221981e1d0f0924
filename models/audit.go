package models

import "time"

// AuditEntry is one security event. Actor and Target are e-mail addresses or
// names such as "user:3", "process:42"; never a token.
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
	AuditSignInNewPlace  = "sign-in-new-place" // also a sign-in: from where the account has not been lately
	AuditSignInLimited   = "sign-in-limited"   // refused by a limit, as is a change of password: once for its key and window
	AuditSignOut         = "sign-out"
	AuditPasswordChanged = "password-changed"
	AuditSessionRevoked  = "session-revoked"
	AuditSessionsRevoked = "sessions-revoked"
	AuditLockForced      = "lock-forced"
	AuditUserCreated     = "user-created"
	AuditUserChanged     = "user-changed"
	AuditUserDeleted     = "user-deleted"
)

// AuditActions are the values that the action filter accepts.
var AuditActions = [...]string{
	AuditSignIn, AuditSignInFailed, AuditSignInNewPlace, AuditSignInLimited, AuditSignOut, AuditPasswordChanged, AuditSessionRevoked,
	AuditSessionsRevoked, AuditLockForced, AuditUserCreated, AuditUserChanged, AuditUserDeleted,
}
