package middleware

import (
	"cmp"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// WarnUntrustedProxy logs once if a request has a proxy's header and comes from a peer that
// is not trusted, or if a trusted proxy sends no X-Forwarded-For, or one that ends in no IP
// address. The header is ignored then, and all clients behind that proxy share one limit.
//
// trusted are the addresses and networks that the engine's SetTrustedProxies got. Set its
// RemoteIPHeaders to X-Forwarded-For alone: Gin would also read X-Real-IP, which a client can
// make up and a proxy may pass on. A nil log is slog.Default. It panics if an entry of
// trusted is neither an address nor a network.
func WarnUntrustedProxy(log *slog.Logger, trusted []string) gin.HandlerFunc {
	log = cmp.Or(log, slog.Default())
	proxies, err := models.NewNetworkList(trusted...)
	if err != nil {
		panic("middleware.WarnUntrustedProxy: " + err.Error())
	}
	var warned atomic.Bool
	return func(c *gin.Context) {
		if warned.Load() {
			return
		}
		header := proxyHeader(c)
		known := proxies.HasAddress(c.RemoteIP())
		forwarded := known && header == forwardedFor
		switch {
		case header == "" || forwarded && namesAddress(c.Request.Header, proxies) || !warned.CompareAndSwap(false, true):
		case forwarded:
			log.Warn("a proxy of TRUSTED_PROXIES names its client in a way that is not understood: all of its clients share one rate limit; "+
				"make it send the address alone in X-Forwarded-For, without a port", "proxy", c.RemoteIP())
		case known:
			log.Warn("a proxy of TRUSTED_PROXIES names its client only in a header that is not read: "+
				"all of its clients share one rate limit; make it send X-Forwarded-For", "header", header, "proxy", c.RemoteIP())
		default:
			log.Warn("a request came through a proxy that is not trusted: the client address it names is ignored, "+
				"and all of its clients share one rate limit; if the proxy is yours, set TRUSTED_PROXIES", "header", header, "proxy", c.RemoteIP())
		}
	}
}

// namesAddress reports whether gin finds a client in X-Forwarded-For. It goes from the end on through
// the addresses of trusted proxies, and ignores it all if it comes to something else than an address.
func namesAddress(h http.Header, proxies models.ClientList) bool {
	names := strings.Split(strings.Join(h.Values(forwardedFor), ","), ",")
	for _, name := range slices.Backward(names) {
		address := strings.TrimSpace(name)
		if _, err := netip.ParseAddr(address); err != nil {
			return false
		}
		if !proxies.HasAddress(address) {
			break
		}
	}
	return true
}

const forwardedFor = "X-Forwarded-For"

// proxyHeader is the name of the header in which a proxy names its client: X-Forwarded-For if
// it is there, else another one. It is empty if there is none.
func proxyHeader(c *gin.Context) string {
	for _, name := range []string{forwardedFor, "X-Real-Ip", "Forwarded"} {
		if c.GetHeader(name) != "" {
			return name
		}
	}
	return ""
}
