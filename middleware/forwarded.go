package middleware

import (
	"log/slog"
	"sync/atomic"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// WarnUntrustedProxy logs, once, that a request came with a proxy's header from
// a peer that is not among the trusted addresses and networks. The header is not
// believed then: behind a real proxy all clients share one limit until it is
// trusted. trusted is what the engine's SetTrustedProxies was given; log must not
// be nil.
func WarnUntrustedProxy(log *slog.Logger, trusted []string) gin.HandlerFunc {
	proxies, err := models.NewClientList(trusted...)
	if err != nil {
		panic("middleware.WarnUntrustedProxy: " + err.Error())
	}
	var warned atomic.Bool
	return func(c *gin.Context) {
		if warned.Load() {
			return
		}
		for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded"} {
			if c.GetHeader(name) == "" || proxies.HasAddress(c.RemoteIP()) {
				continue
			}
			if warned.CompareAndSwap(false, true) {
				log.Warn("a request came through a proxy that is not trusted: its client's address is not believed, and all of its clients share one rate limit; "+
					"if the proxy is yours, set TRUSTED_PROXIES", "header", name, "proxy", c.RemoteIP())
			}
			return
		}
	}
}
