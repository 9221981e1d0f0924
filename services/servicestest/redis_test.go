package servicestest

import (
	"net"
	"strconv"
	"testing"
)

// A server that is killed finds its port again: no other test binary is given it meanwhile.
func TestPortIsReserved(t *testing.T) {
	_, port, err := net.SplitHostPort(FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if reserve(number) == nil {
		t.Errorf("port %d is given twice", number)
	}
}
