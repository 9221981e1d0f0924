//go:build !linux && !darwin

package app

import "net"

// fileLimit is how many files this process may have open, as far as is known.
func fileLimit() int { return unknownFileLimit }

// hasUnread reports whether a request is known to have arrived on conn: never, here.
func hasUnread(net.Conn) bool { return false }
