package app

import (
	"fmt"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/middleware"
)

func (a *app) router(registry prometheus.Registerer) (*gin.Engine, error) {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.UseRawPath, r.HandleMethodNotAllowed = true, true
	r.RedirectTrailingSlash = false
	r.RemoteIPHeaders = []string{"X-Forwarded-For"} // a proxy that sets it passes on whatever else a client sends
	if err := r.SetTrustedProxies(a.config.TrustedProxies); err != nil {
		return nil, fmt.Errorf("TRUSTED_PROXIES: %w", err)
	}
	r.Use(middleware.WarnUntrustedProxy(a.log, a.config.TrustedProxies))
	r.Use(middleware.RequestID(), middleware.AccessLog(a.log, "/healthz", "/readyz", "/metrics", "/dashboard/locks", "/processes/:id/edit/state"), middleware.Metrics(registry),
		middleware.Recovery(a.log), middleware.SecurityHeaders(a.config.Secure()), middleware.Compress())
	a.handlers.Register(r)
	r.GET("/swagger/*any", swagger())
	return r, nil
}
