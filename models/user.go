package models

import (
	"slices"
	"time"
	"unicode/utf8"
)

// The roles. Each includes the ones before it.
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

// Credentials are what a sign-in is checked against: the user, the password hash and the user's
// epoch, from one row.
type Credentials struct {
	User
	PasswordHash string
	Epoch        int64
}

// UserPatch is a change of a user; nil fields stay as they are.
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

// HighestRole is the role that includes the other ones, "" if roles names none.
func HighestRole(roles []string) string {
	for _, role := range slices.Backward(rolesInOrder[:]) {
		if slices.Contains(roles, role) {
			return role
		}
	}
	return ""
}

// ValidateRoles returns a *ValidationError for a list that is empty, or names an unknown role or
// one twice; nil if it is valid.
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

// ValidatePassword returns a *ValidationError about field unless a new password has 12 to 128
// characters, of any kind; nil if it has.
func ValidatePassword(field, password string) error {
	if n := utf8.RuneCountInString(password); n < 12 || n > 128 {
		return Invalid(field, "must have 12 to 128 characters")
	}
	return nil
}
