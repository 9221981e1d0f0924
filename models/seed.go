package models

// Seed is the first content of a new database.
type Seed struct {
	Users     []NewUser
	Owner     string // e-mail address of the user who wrote the processes
	Processes []ProcessFields
}

// NewUser is a user to be stored.
type NewUser struct {
	Email        string
	PasswordHash string
	Roles        []string
}
