package middleware

import (
	"cmp"
	"log/slog"
	"sync/atomic"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// WarnUntrustedProxy logs once if a request has a proxy's header and comes from a peer that
// is not trusted, or if a trusted proxy sends no X-Forwarded-For. The header is ignored
// then, and all clients behind that proxy share one limit.
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
		switch {
		case header == "" || known && header == forwardedFor || !warned.CompareAndSwap(false, true):
		case known:
			log.Warn("a proxy of TRUSTED_PROXIES names its client only in a header that is not read: "+
				"all of its clients share one rate limit; make it send X-Forwarded-For", "header", header, "proxy", c.RemoteIP())
		default:
			log.Warn("a request came through a proxy that is not trusted: the client address it names is ignored, "+
				"and all of its clients share one rate limit; if the proxy is yours, set TRUSTED_PROXIES", "header", header, "proxy", c.RemoteIP())
		}
	}
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
