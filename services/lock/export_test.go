package lock

// NewToken is a token for tests outside.
func NewToken() string { return newToken() }

// Alone reports whether no other instance is expected to have locks.
func (l *Locker) Alone() bool { return l.peers.none() }
