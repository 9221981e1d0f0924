package middleware

import (
	"cmp"
	"log/slog"
	"sync/atomic"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// WarnUntrustedProxy logs, once, that a request came with a proxy's header from
// a peer that is not among the trusted addresses and networks, or that a trusted one
// sends no X-Forwarded-For. The header is not believed then: behind a real proxy all
// clients share one limit. trusted is what the engine's SetTrustedProxies was given;
// set its RemoteIPHeaders to X-Forwarded-For alone: Gin would also read X-Real-IP,
// which a proxy may pass on as a client made it up. A nil log is slog.Default. It
// panics on anything in trusted that is neither address nor network.
func WarnUntrustedProxy(log *slog.Logger, trusted []string) gin.HandlerFunc {
	log = cmp.Or(log, slog.Default())
	proxies, err := models.NewClientList(trusted...)
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
			log.Warn("a request came through a proxy of TRUSTED_PROXIES that tells of its client in another header only, which is not read: "+
				"all of its clients share one rate limit; make it send X-Forwarded-For", "header", header, "proxy", c.RemoteIP())
		default:
			log.Warn("a request came through a proxy that is not trusted: its client's address is not believed, and all of its clients share one rate limit; "+
				"if the proxy is yours, set TRUSTED_PROXIES", "header", header, "proxy", c.RemoteIP())
		}
	}
}

const forwardedFor = "X-Forwarded-For"

// proxyHeader is the header in which a proxy tells of its client, empty without
// one: another one only if there is no X-Forwarded-For.
func proxyHeader(c *gin.Context) string {
	for _, name := range []string{forwardedFor, "X-Real-Ip", "Forwarded"} {
		if c.GetHeader(name) != "" {
			return name
		}
	}
	return ""
}
