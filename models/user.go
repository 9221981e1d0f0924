package models

import (
	"slices"
	"time"
	"unicode/utf8"
)

// Roles, each including the ones before it.
const (
	RoleViewer = "viewer" // reads
	RoleEditor = "editor" // also locks, creates and edits
	RoleAdmin  = "admin"  // also forces locks and manages users
)

// User is an account, without its password.
type User struct {
	ID        string    `json:"id"`
	Email     string    `json:"email"`
	Roles     []string  `json:"roles"`
	Disabled  bool      `json:"disabled"`
	CreatedAt time.Time `json:"createdAt"`
}

// UserRef names a user in another record.
type UserRef struct {
	ID    string `json:"id"`
	Email string `json:"email"`
}

// Credentials are what a sign-in is checked against: the user, the password
// hash, and the user's epoch, all read from the same row.
type Credentials struct {
	User
	PasswordHash string
	Epoch        int64
}

// UserPatch names what to change about a user; nil means unchanged.
type UserPatch struct {
	Roles        []string
	Disabled     *bool
	PasswordHash *string
}

var rolesInOrder = [...]string{RoleViewer, RoleEditor, RoleAdmin}

// HasRole reports whether roles include role, or a role that includes it.
func HasRole(roles []string, role string) bool {
	need := slices.Index(rolesInOrder[:], role)
	return need >= 0 && slices.Index(rolesInOrder[:], HighestRole(roles)) >= need
}

// HighestRole is the one of roles that includes the others, "" if there is none.
func HighestRole(roles []string) string {
	for _, role := range slices.Backward(rolesInOrder[:]) {
		if slices.Contains(roles, role) {
			return role
		}
	}
	return ""
}

// ValidateRoles says what is wrong with a list of roles, nil if nothing is.
func ValidateRoles(roles []string) error {
	if len(roles) == 0 {
		return Invalid("roles", "must name at least one of viewer, editor, admin")
	}
	seen := map[string]bool{}
	for _, r := range roles {
		if !slices.Contains(rolesInOrder[:], r) || seen[r] {
			return Invalid("roles", "must be different ones of viewer, editor, admin")
		}
		seen[r] = true
	}
	return nil
}

// ValidatePassword says what is wrong with a new password, nil if nothing is:
// 12 to 128 characters of any kind. field names the input for the error.
func ValidatePassword(field, password string) error {
	if n := utf8.RuneCountInString(password); n < 12 || n > 128 {
		return Invalid(field, "must have 12 to 128 characters")
	}
	return nil
}
