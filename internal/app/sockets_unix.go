//go:build linux || darwin

package app

import (
	"math"
	"net"
	"syscall"
)

// fileLimit is how many files, connections included, this process may have open.
func fileLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return unknownFileLimit
	}
	return int(min(limit.Cur, math.MaxInt32)) // without a limit it is 2^64-1
}

// hasUnread reports whether bytes have arrived on conn that the server has not read yet:
// on a busy machine it may take a while to do so.
func hasUnread(conn net.Conn) bool {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	arrived := 0
	err = raw.Control(func(fd uintptr) {
		arrived, _, _ = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err == nil && arrived > 0
}
