package app

import (
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	swaggerfiles "github.com/swaggo/files"
	ginswagger "github.com/swaggo/gin-swagger"

	_ "gatehouse/docs" // the generated API description
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
	r.Use(middleware.RequestID(), middleware.AccessLog(a.log, "/healthz", "/readyz", "/metrics", "/dashboard/locks"), middleware.Metrics(registry),
		middleware.Recovery(a.log), middleware.SecurityHeaders(a.config.Secure()), middleware.Compress())
	a.handlers.Register(r)
	docs := ginswagger.WrapHandler(swaggerfiles.Handler, ginswagger.PersistAuthorization(true))
	r.GET("/swagger/*any", func(c *gin.Context) {
		if c.Param("any") == "/" {
			c.Redirect(http.StatusFound, "/swagger/index.html")
			return
		}
		docs(c)
	})
	return r, nil
}
