package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-redis/redis_rate/v10"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	ulule "github.com/ulule/limiter/v3"
	ululeredis "github.com/ulule/limiter/v3/drivers/store/redis"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services/ratelimit"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
)

// bareScript is the least a sorted set can do for a sliding log: it trusts that
// time never goes back, tells nothing, and cannot take back.
const bareScript = `
local clock = redis.call('TIME')
local now, window = clock[1] * 1000000 + clock[2], tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
local used = redis.call('ZCARD', KEYS[1])
if used >= tonumber(ARGV[1]) then return {0, used} end
redis.call('ZADD', KEYS[1], now, ARGV[3])
redis.call('PEXPIRE', KEYS[1], window / 1000)
return {1, used + 1}`

const (
	limit  = 100
	window = time.Second
)

func newLimiter(t testing.TB, opt redis.Options) *ratelimit.Limiter {
	t.Helper()
	opt.Logger = slog.New(slog.DiscardHandler)
	rdb := redis.New(opt)
	t.Cleanup(func() { _ = rdb.Close(context.Background()) })
	if !opt.Disabled {
		servicestest.Eventually(t, rdb.Available, "Redis did not become available")
	}
	return ratelimit.New(rdb, ratelimit.Options{Logger: opt.Logger})
}

func at(server *servicestest.RedisServer) redis.Options {
	return redis.Options{Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}, Timeout: time.Second}
}

func keys() []string {
	all := make([]string, keyNumber)
	for i := range all {
		all[i] = fmt.Sprint("user:", i)
	}
	return all
}

var errDegraded = errors.New("decided without Redis")

func take(l *ratelimit.Limiter, policy models.Policy, key string) error {
	decisions, err := l.Take(context.Background(), "bench", models.Hit{Policy: policy, Key: key})
	if err == nil && decisions[0].Degraded {
		return errDegraded
	}
	return err
}

func peers(t testing.TB, server *servicestest.RedisServer) (*goredis.Client, *redis_rate.Limiter, *ulule.Limiter) {
	t.Helper()
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = client.Close() })
	store, err := ululeredis.NewStoreWithOptions(client, ulule.StoreOptions{Prefix: "ulule"})
	if err != nil {
		t.Fatal(err)
	}
	return client, redis_rate.NewLimiter(client), ulule.New(store, ulule.Rate{Period: window, Limit: limit})
}

// One exact decision by Redis, 64 at a time over 1,000 keys, most of them allowed.
func TestRateLimitDecision(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := newLimiter(t, at(server))
	bare, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr}, AlwaysPipelining: true, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	script := rueidis.NewLuaScript(bareScript)
	_, rate, fixed := peers(t, server)
	all := keys()
	log := models.Policy{Name: "log", Limit: limit, Window: window}
	gcra := models.Policy{Name: "gcra", Limit: 10 * limit, Window: window, Algorithm: models.AlgorithmGCRA}
	speed := race(t, workers,
		contender{"gatehouse sliding log", func(i int64) error { return take(l, log, all[i%keyNumber]) }},
		contender{"bare sorted-set script", func(i int64) error {
			_, err := script.Exec(context.Background(), bare, []string{"bare:" + all[i%keyNumber]},
				[]string{strconv.Itoa(limit), strconv.FormatInt(window.Microseconds(), 10), strconv.FormatInt(i, 10)}).AsIntSlice()
			return err
		}},
		contender{"ulule/limiter", func(i int64) error {
			_, err := fixed.Get(context.Background(), all[i%keyNumber])
			return err
		}},
		contender{"redis_rate", func(i int64) error {
			_, err := rate.Allow(context.Background(), all[i%keyNumber], redis_rate.PerSecond(limit))
			return err
		}},
		contender{"gatehouse GCRA", func(i int64) error { return take(l, gcra, all[i%keyNumber]) }},
	)
	tellRatio("decision: sliding log / ulule (fixed window)", speed, "gatehouse sliding log", "ulule/limiter", 1.0)
	tellRatio("decision: sliding log / redis_rate", speed, "gatehouse sliding log", "redis_rate", 1.5)
	tellRatio("decision: sliding log / bare sorted-set script", speed, "gatehouse sliding log", "bare sorted-set script", 0.85)
	tellRatio("the least: bare sorted-set script / ulule", speed, "bare sorted-set script", "ulule/limiter", 0)
	tellRatio("the least: bare sorted-set script / redis_rate", speed, "bare sorted-set script", "redis_rate", 0)
	tellRatio("decision: GCRA / redis_rate", speed, "gatehouse GCRA", "redis_rate", 1.5)
}

// A key that is over its limit.
func TestRateLimitDenied(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := newLimiter(t, at(server))
	_, rate, _ := peers(t, server)
	policy := models.Policy{Name: "p", Limit: 1, Window: time.Hour}
	speed := race(t, workers,
		contender{"gatehouse", func(int64) error { return take(l, policy, "flooded") }},
		contender{"redis_rate", func(int64) error {
			_, err := rate.Allow(context.Background(), "flooded", redis_rate.PerHour(1))
			return err
		}},
	)
	tellRatio("denied key / redis_rate", speed, "gatehouse", "redis_rate", 20)
	allocs := testing.AllocsPerRun(10_000, func() { _ = take(l, policy, "flooded") })
	tell("denied key: allocations", fmt.Sprint(allocs), "0", allocs == 0)
}

// A hot key with leases against one exact decision for each request.
func TestRateLimitLease(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := newLimiter(t, at(server))
	exact := models.Policy{Name: "exact", Limit: models.MaxLimit, Window: time.Second}
	leased := models.Policy{Name: "leased", Limit: models.MaxLimit, Window: time.Second, Block: 10_000}
	speed := race(t, workers,
		contender{"leases", func(int64) error { return take(l, leased, "hot") }},
		contender{"exact", func(int64) error { return take(l, exact, "hot") }},
	)
	tellRatio("hot key: leases / one decision each", speed, "leases", "exact", 10)
}

type nothing struct{ header http.Header }

func (n nothing) Header() http.Header         { return n.header }
func (n nothing) Write(b []byte) (int, error) { return len(b), nil }
func (n nothing) WriteHeader(int)             {}

// The middleware with a decision in this instance over a bare handler.
func TestRateLimitMiddleware(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	l := newLimiter(t, redis.Options{Disabled: true})
	leased := newLimiter(t, at(servicestest.StartRedis(t)))
	app := func(handlers ...gin.HandlerFunc) *gin.Engine {
		r := gin.New()
		if err := r.SetTrustedProxies(nil); err != nil {
			t.Fatal(err)
		}
		r.GET("/", append(handlers, func(c *gin.Context) { c.String(http.StatusOK, "ok") })...)
		return r
	}
	policy := middleware.Policy{Name: "api", Limit: models.MaxLimit, Window: time.Second}
	blocks := policy
	blocks.Block = 100_000
	key := func(*gin.Context) string { return "user:42" }
	policy.Key, blocks.Key = key, key
	// What no middleware that limits and tells can leave out: it finds the key's
	// counter, reads the clock, and puts five numbers into headers. It measures
	// nothing, knows one policy, and lets twice the limit pass around a window's end.
	var mu sync.Mutex
	counters := map[string]*struct{ window, used int64 }{}
	policyText := []string{`"api";q=1000000;w=1`}
	least := app(func(c *gin.Context) {
		who, now := key(c), time.Now().Unix()
		mu.Lock()
		counter := counters[who]
		if counter == nil {
			counter = &struct{ window, used int64 }{}
			counters[who] = counter
		}
		if counter.window != now {
			counter.window, counter.used = now, 0
		}
		counter.used++
		left := models.MaxLimit - counter.used
		mu.Unlock()
		if left < 0 {
			c.AbortWithStatus(http.StatusTooManyRequests)
			return
		}
		header, remaining := c.Writer.Header(), strconv.FormatInt(left, 10)
		header["Ratelimit-Policy"] = policyText
		header["Ratelimit"] = []string{`"api";r=` + remaining + ";t=1"}
		header["X-Ratelimit-Limit"] = []string{"1000000"}
		header["X-Ratelimit-Remaining"] = []string{remaining}
		header["X-Ratelimit-Reset"] = []string{strconv.FormatInt(now+1, 10)}
	})
	apps := map[string]*gin.Engine{
		"bare": app(), "least": least, "local": app(middleware.RateLimit(l, policy)), "lease": app(middleware.RateLimit(leased, blocks)),
	}
	var contenders []contender
	for _, name := range []string{"bare", "least", "local", "lease"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		contenders = append(contenders, contender{name, func(int64) error {
			apps[name].ServeHTTP(nothing{http.Header{}}, r)
			return nil
		}})
	}
	speed := race(t, 1, contenders...)
	added := func(name string) time.Duration { return time.Duration(1e9/speed[name] - 1e9/speed["bare"]) }
	tell("the least: a counter and five headers over a bare Gin handler", added("least").String(), "", true)
	for _, name := range []string{"local", "lease"} {
		added := added(name)
		tell("middleware over a bare Gin handler, "+name, added.String(), "<= 1µs", added <= time.Microsecond)
	}
}

// What a key takes in Redis.
func TestRateLimitMemory(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := newLimiter(t, at(server))
	for _, entries := range []int64{10, 100, 1000} {
		policy := models.Policy{Name: "log", Limit: entries, Window: time.Hour}
		key := fmt.Sprint("user:", entries)
		for range entries {
			if err := take(l, policy, key); err != nil {
				t.Fatal(err)
			}
		}
		bytes := memory(t, server, "{"+key+"}rate:log:log:"+key)
		goal := ""
		if entries == 100 {
			goal = "<= 2200"
		}
		tell(fmt.Sprintf("memory of a key with %d entries, bytes", entries), fmt.Sprint(bytes), goal, bytes <= 2200)
	}
	if err := take(l, models.Policy{Name: "gcra", Limit: models.MaxLimit, Window: time.Hour}, "user:0"); err != nil {
		t.Fatal(err)
	}
	tell("memory of a GCRA key, bytes", fmt.Sprint(memory(t, server, "{user:0}rate:gcra3600:gcra:user:0")), "", true)
}

func memory(t *testing.T, server *servicestest.RedisServer, key string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(server.Do("MEMORY", "USAGE", key)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
