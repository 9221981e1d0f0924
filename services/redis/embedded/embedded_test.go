package embedded

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/services/servicestest"
)

// world is a server whose clock the test moves on, and a client of it.
type world struct {
	*Server
	t      *testing.T
	client rueidis.Client
	passed atomic.Int64
}

func newWorld(t *testing.T, tick time.Duration) *world {
	t.Helper()
	w, began := &world{t: t}, time.Now()
	var err error
	w.Server, err = start(tick, func() time.Time { return began.Add(time.Duration(w.passed.Load())) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	opt := w.ClientOption()
	opt.DisableCache, opt.ConnWriteTimeout, opt.Dialer.Timeout = true, servicestest.Patience, servicestest.Patience
	if w.client, err = rueidis.NewClient(opt); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.client.Close)
	return w
}

func (w *world) pass(d time.Duration) { w.passed.Add(int64(d)) }

func (w *world) do(args ...string) rueidis.RedisMessage {
	w.t.Helper()
	reply, err := w.client.Do(w.t.Context(), w.client.B().Arbitrary(args...).Build()).ToMessage()
	if err != nil && !rueidis.IsRedisNil(err) {
		w.t.Fatalf("%v: %v", args, err)
	}
	return reply
}

// wantLeft wants a key to have so many milliseconds left.
func (w *world) wantLeft(key string, want int64) {
	w.t.Helper()
	reply := w.do("PTTL", key)
	if left, err := reply.AsInt64(); err != nil || left != want {
		w.t.Errorf("%s has %d ms left, want %d: %v", key, left, want, err)
	}
}

const never = 24 * time.Hour

func TestTimeOfKeys(t *testing.T) {
	t.Parallel()
	for how, write := range map[string][]string{
		"a command": {"SET", "late", "v", "PX", "1000"},
		"a script":  {"EVAL", "redis.call('GET', KEYS[1]); return redis.call('SET', KEYS[1], 'v', 'PX', 1000)", "1", "late"},
	} {
		t.Run("what "+how+" writes loses nothing of the time before it, however late the tick is", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, never)
			w.do("SET", "early", "v", "PX", "1000")
			w.pass(900 * time.Millisecond)
			w.do(write...)
			w.moveOn() // as the late tick does
			w.wantLeft("late", 1000)
			w.wantLeft("early", 100)
			w.pass(100 * time.Millisecond)
			w.wantLeft("early", -2)
			w.wantLeft("late", 900)
		})
	}
	t.Run("time that is too short to be taken off is not lost", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, never)
		w.do("SET", "key", "v", "PX", "1000")
		for range 4 {
			w.pass(grain / 2)
			w.do("PING")
		}
		w.wantLeft("key", 1000-2)
	})
	t.Run("a key ends without a command", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, tick)
		w.do("SET", "key", "v", "PX", "1000")
		w.pass(time.Second)
		servicestest.Eventually(t, func() bool { return !w.server.Exists("key") }, "the key stays")
	})
}

func TestClientsLeave(t *testing.T) {
	t.Parallel()
	w := newWorld(t, tick)
	w.client.Close()
	servicestest.Eventually(t, func() bool {
		left := 0
		w.clients.Range(func(any, any) bool { left++; return true })
		return left == 0
	}, "a client that has gone is remembered")
}
