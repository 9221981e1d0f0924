package models

// Seed is what a new database begins with.
type Seed struct {
	Users     []NewUser
	Owner     string // the e-mail address of the one of them who wrote the processes
	Processes []ProcessFields
}

// NewUser is a user to be stored.
type NewUser struct {
	Email        string
	PasswordHash string
	Roles        []string
}
