package lock

import (
	"testing"

	"gatehouse/services/servicestest"
)

// A server that has forgotten its locks keeps them for their holders: another instance that is
// quicker to ask does not get them.
func TestForgottenIsKeptForItsHolder(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	l, quicker := openApart(t, server), openAt(t, server.Addr)
	openAt(t, server.Addr) // the quicker one never thinks that it is alone, however long this takes
	acquainted(t, l.Locker, quicker)
	held := take(t, l.Locker, request("r", alice))
	observed(t, quicker, "r")
	l.cut() // it reasserts nothing meanwhile
	server.Do("FLUSHALL")
	wantRefused(t, quicker, "r")
	l.restore()
	servicestest.Eventually(t, func() bool { return quicker.mustStatus(t, "r").Grant == held.Grant }, "it is not reasserted")
}
