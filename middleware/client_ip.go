package middleware

import (
	"net/netip"

	"github.com/gin-gonic/gin"
)

// clientBits is how much of an IPv6 address names a client: providers give a
// customer a /56 or more, so a single address is worth nothing.
const clientBits = 56

// ClientNetwork is the network that the client counts as: its IPv4 address
// (also when it came mapped into IPv6), or the /56 of its IPv6 address. The
// address is Gin's ClientIP, so a proxy's header counts only if the engine
// trusts that proxy: gin trusts all unless SetTrustedProxies is called, and of those
// it trusts it also reads X-Real-IP unless RemoteIPHeaders names X-Forwarded-For
// alone. It is empty when the address is unknown, as on a Unix socket.
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
	network, _ := ip.Prefix(clientBits) // never fails: an IPv6 address has 128 bits
	return network.String()
}
