package lock

// Alone reports whether no other instance is expected to have locks.
func (l *Locker) Alone() bool { return l.peers.none() }
