package middleware

import (
	"net/netip"

	"github.com/gin-gonic/gin"
)

// clientBits is how much of an IPv6 address identifies a client. Providers give a customer
// a /56 or more, so a limit on single addresses would limit nothing.
const clientBits = 56

// ClientNetwork is the network that the client counts as: its IPv4 address, also if it came
// mapped into IPv6, or the /56 of its IPv6 address. It is empty if the address is unknown,
// as on a Unix socket.
//
// The address is Gin's ClientIP, which believes the headers of trusted proxies. Gin trusts
// all proxies unless SetTrustedProxies is called. It also reads X-Real-IP unless
// RemoteIPHeaders is X-Forwarded-For alone.
func ClientNetwork(c *gin.Context) string {
	return networkOf(c.ClientIP())
}

func networkOf(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	ip = ip.Unmap()
	if ip.Is4() {
		return ip.String()
	}
	network, _ := ip.Prefix(clientBits) // an IPv6 address has 128 bits: no error
	return network.String()
}
