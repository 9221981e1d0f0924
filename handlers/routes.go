package handlers

import (
	"cmp"
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/internal/require"
	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/ratelimit"
	"gatehouse/services/redis"
	"gatehouse/services/session"
	"gatehouse/templates"
)

// Options is what the handlers work with. New refuses a field before Heartbeat that is not set.
type Options struct {
	Processes *services.Processes
	Locks     *lock.Locker
	Accounts  *services.Accounts
	Recorder  *services.Recorder
	Sessions  *session.Cache
	Limiter   *ratelimit.Limiter
	Redis     *redis.Client
	Database  Database
	Pages     *templates.Pages
	Cookie    *middleware.SessionStore
	Metrics   http.Handler

	PublicURL string        // the origin that browsers see
	API       models.Policy // limits each signed-in user
	Anonymous models.Policy // limits each client address without a session

	Heartbeat      time.Duration // interval of comments in a quiet event stream; 0 is 15 s
	LocksPerUser   int           // locks that a user may hold at a time; 0 is no limit
	StreamsPerUser int           // event streams that a user may have open at this instance; 0 is 20
	Connections    int           // connections that the server keeps open at most; 0 is no limit
}

// Database is the part of the database that handlers call themselves.
type Database interface {
	// Ping is nil only if the database can be read and written.
	Ping(ctx context.Context) error
	// WithBudget makes all calls to the database with the returned context share one timeout.
	WithBudget(ctx context.Context) context.Context
}

// Handlers answers requests. It is safe for concurrent use.
type Handlers struct {
	Options
	streams   *places
	waits     *places
	draining  atomic.Bool
	drainOnce sync.Once
	drain     chan struct{} // closed when the server begins to shut down
}

// New returns handlers for Register. Drain ends their streams and waits. It panics without one
// of the fields before Heartbeat, and on an invalid policy: that is a mistake in the program.
func New(opt Options) *Handlers {
	require.Must("handlers.New",
		require.Argument{Name: "Processes", Value: opt.Processes}, require.Argument{Name: "Locks", Value: opt.Locks},
		require.Argument{Name: "Accounts", Value: opt.Accounts}, require.Argument{Name: "Recorder", Value: opt.Recorder}, require.Argument{Name: "Sessions", Value: opt.Sessions},
		require.Argument{Name: "Limiter", Value: opt.Limiter}, require.Argument{Name: "Redis", Value: opt.Redis},
		require.Argument{Name: "Database", Value: opt.Database}, require.Argument{Name: "Pages", Value: opt.Pages},
		require.Argument{Name: "Cookie", Value: opt.Cookie}, require.Argument{Name: "Metrics", Value: opt.Metrics})
	if opt.PublicURL == "" {
		panic("handlers.New: no PublicURL")
	}
	for _, policy := range []models.Policy{opt.API, opt.Anonymous} {
		if err := policy.Validate(); err != nil {
			panic("handlers.New: " + err.Error())
		}
	}
	return &Handlers{
		Options: opt, drain: make(chan struct{}),
		// Half of the connections are for streams, a quarter for requests that wait. The last
		// quarter is always free for other requests.
		streams: newPlaces(opt.Connections/2, cmp.Or(opt.StreamsPerUser, streamsPerUser)),
		waits:   newPlaces(opt.Connections/4, opt.Connections/8),
	}
}

// NotReady makes /readyz answer 503, so that load balancers send no new requests. All requests
// are still served.
func (h *Handlers) NotReady() { h.draining.Store(true) }

// Drain ends event streams and waiting requests, before the server shuts down. A second call
// does nothing.
func (h *Handlers) Drain() {
	h.NotReady()
	h.drainOnce.Do(func() { close(h.drain) })
}

// Register adds every route to r. Requests are refused in the order of the handlers.
func (h *Handlers) Register(r *gin.Engine) {
	r.Use(middleware.LimitBody(maxBody), h.budgets)
	r.NoRoute(h.handle(h.noRoute))
	r.NoMethod(h.handle(h.noMethod))

	r.GET("/healthz", h.handle(h.alive))
	r.HEAD("/healthz", h.handle(h.alive))
	r.GET("/readyz", h.handle(h.ready))
	r.HEAD("/readyz", h.handle(h.ready))
	r.GET("/metrics", gin.WrapH(h.Metrics))

	identify := []gin.HandlerFunc{
		middleware.FindToken(h.Cookie.CookieName()), h.handle(h.refuseFlood), middleware.LookUp(h.Sessions, middleware.IgnoreActivity(refreshesItself)), h.limitRate(),
	}
	sameOrigin := middleware.SameOrigin(h.PublicURL)
	h.registerPages(r, append([]gin.HandlerFunc{sameOrigin}, identify...)...)

	open := r.Group("/api/v1", append([]gin.HandlerFunc{noStore}, identify...)...)
	open.POST("/auth/login", sameOrigin, h.handle(h.login))

	api := open.Group("", middleware.RequireSession(), sameOrigin)
	api.POST("/auth/logout", h.handle(h.logout))
	api.GET("/auth/session", h.handle(h.currentSession))
	api.POST("/auth/refresh", h.handle(h.refreshSession))
	api.POST("/auth/password", h.handle(h.changePassword))
	api.GET("/sessions", h.handle(h.listSessions))
	api.DELETE("/sessions", h.handle(h.endSessions))
	api.DELETE("/sessions/:id", h.handle(h.endSession))

	viewer := api.Group("", middleware.RequireRole(models.RoleViewer))
	viewer.GET("/processes", h.handle(h.listProcesses))
	viewer.GET("/processes/:id", h.handle(h.getProcess))
	viewer.GET("/processes/:id/history", h.handle(h.listHistory))
	viewer.GET("/processes/:id/versions/:n", h.handle(h.getVersion))
	viewer.GET("/processes/:id/lock/status", h.handle(h.lockStatus))
	viewer.GET("/locks", h.handle(h.listLocks))
	viewer.GET("/locks/events", h.handle(h.lockEvents))
	viewer.GET("/locks/:resource", h.handle(h.getLock))
	viewer.GET("/refusals/:id", h.handle(h.getRefusal))

	editor := api.Group("", middleware.RequireRole(models.RoleEditor))
	editor.POST("/processes", h.handle(h.createProcess))
	editor.PUT("/processes/:id", h.handle(h.replaceProcess))
	editor.PATCH("/processes/:id/quick-update", h.handle(h.quickUpdate))
	editor.DELETE("/processes/:id", h.handle(h.deleteProcess))
	editor.POST("/processes/:id/restore", h.handle(h.restoreProcess))
	editor.GET("/processes/:id/draft", h.handle(h.getDraft))
	editor.PUT("/processes/:id/draft", h.handle(h.putDraft))
	editor.DELETE("/processes/:id/draft", h.handle(h.deleteDraft))
	editor.POST("/processes/:id/lock", h.handle(h.lockProcess))
	editor.POST("/processes/:id/lock/extend", h.handle(h.extendLock))
	editor.DELETE("/processes/:id/lock", h.handle(h.unlockProcess))
	editor.POST("/processes/:id/lock/requests", h.handle(h.askForLock))
	editor.GET("/processes/:id/lock/requests/:request", h.handle(h.getLockRequest))
	editor.DELETE("/processes/:id/lock/requests/:request", h.handle(h.withdrawLockRequest))
	editor.POST("/processes/:id/lock/requests/:request/answer", h.handle(h.answerLockRequest))

	admin := api.Group("", middleware.RequireRole(models.RoleAdmin))
	admin.DELETE("/locks/:resource", h.handle(h.forceLock))
	admin.POST("/sessions/end-all", h.handle(h.endAllSessions))
	admin.GET("/users", h.handle(h.listUsers))
	admin.POST("/users", h.handle(h.createUser))
	admin.GET("/users/:id", h.handle(h.getUser))
	admin.PATCH("/users/:id", h.handle(h.changeUser))
	admin.DELETE("/users/:id", h.handle(h.deleteUser))
	admin.GET("/users/:id/sessions", h.handle(h.userSessions))
	admin.DELETE("/users/:id/sessions", h.handle(h.endUserSessions))
	admin.GET("/audit", h.handle(h.listAudit))
}

// budgets makes all Redis calls of a request share one REDIS_TIMEOUT, and all its database
// calls one DATABASE_TIMEOUT. What they write remembers the request.
func (h *Handlers) budgets(c *gin.Context) {
	ctx := models.WithRequestID(c.Request.Context(), middleware.RequestIDFrom(c))
	c.Request = c.Request.WithContext(h.Database.WithBudget(redis.WithBudget(ctx)))
}

// Headers of which all answers share the values: nothing is made for each.
var (
	neverKept   = [...]string{"no-store"}
	keptForUser = [...]string{"private, no-cache"}
	userTold    = [...]string{"Authorization, Cookie"}
)

func noStore(c *gin.Context) { c.Writer.Header()["Cache-Control"] = neverKept[:] }

// problemDoc is the body of every error (RFC 9457).
//
//nolint:unused // only the annotations name it
type problemDoc struct {
	Type      string              `json:"type" example:"/problems/validation"`
	Title     string              `json:"title" example:"Invalid input"`
	Status    int                 `json:"status" example:"422"`
	Detail    string              `json:"detail" example:"Correct the fields named in errors."`
	Instance  string              `json:"instance" example:"/api/v1/processes"`
	RequestID string              `json:"requestId"`
	Errors    []models.FieldError `json:"errors,omitempty"`
}
