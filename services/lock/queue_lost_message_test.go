package lock_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// A grant's message that is lost costs at most 100 ms: the next heartbeat brings it.
func TestLockLostGrantMessageCostsAHeartbeat(t *testing.T) {
	server := servicestest.StartRedis(t)
	holder := lockers(t, server, 1, lock.Options{})[0]
	rdb := redistest.At(t, server.Addr, redis.Options{Client: rueidis.ClientOption{ClientName: "waiter"}, Timeout: 5 * time.Second})
	waiter := lock.New(rdb, lock.Options{})
	subscribed := func() int {
		return strings.Count(server.Do("PUBSUB", "CHANNELS", "test:grants:*"), "test:grants:")
	}
	var took []time.Duration
	for tries := 0; len(took) < crashRounds; tries++ {
		if tries == 4*crashRounds {
			t.Fatalf("the message was lost %d times only", len(took))
		}
		servicestest.Eventually(t, func() bool { return subscribed() == 2 }, "not subscribed")
		held := mustAcquire(t, holder, request("process:1", alice))
		granted := make(chan lock.Lock, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		go func() {
			taken, err := waiter.Acquire(ctx, request("process:1", bob))
			if err != nil {
				t.Error(err)
			}
			granted <- taken
		}()
		waitFor(t, holder, 1)
		killSubscriptions(server, "waiter")
		deaf := subscribed() == 1
		start := time.Now()
		if _, err := holder.Release(t.Context(), held.Claim); err != nil {
			t.Fatal(err)
		}
		taken := <-granted
		if took1 := time.Since(start); deaf { // subscribing again takes 250 ms and more
			took = append(took, took1)
		}
		cancel()
		if _, err := waiter.Release(t.Context(), taken.Claim); err != nil {
			t.Fatal(err)
		}
	}
	most := 130 * time.Millisecond
	if servicestest.LongProof() { // the machine is quiet
		most = 100 * time.Millisecond
	}
	if m := median(t, "from the release to the grant, without the message", took); m > most {
		t.Errorf("a lost message costs %v", m)
	}
}

// killSubscriptions ends the connections of a client that are subscribed.
func killSubscriptions(server *servicestest.RedisServer, client string) {
	for line := range strings.Lines(server.Do("CLIENT", "LIST")) {
		if !strings.Contains(line, " name="+client+" ") || strings.Contains(line, " sub=0 ") {
			continue
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(line, "id="), " ")
		server.Do("CLIENT", "KILL", "ID", id)
	}
}

// silence is how many milliseconds ago the instance of ARGV[1] sent a heartbeat.
const silence = `local t = redis.call('TIME'); return math.floor(t[1] * 1000 + t[2] / 1000 - redis.call('ZSCORE', KEYS[1], ARGV[1]))`

// A waiter that was passed over because its instance did not answer for a while
// comes before those who came later, when it is back.
func TestLockWaiterPassedOverKeepsItsPlace(t *testing.T) {
	for _, row := range []struct {
		name   string
		silent time.Duration // before the hand-over: known to be silent, or not
	}{{"did not take the grant", 0}, {"was silent", 300 * time.Millisecond}} {
		t.Run(row.name, func(t *testing.T) {
			server := servicestest.StartRedis(t)
			proxy := servicestest.NewProxy(t, server.Addr)
			all := lockers(t, server, 2, lock.Options{})
			first := lock.New(redistest.Patient(t, proxy.Addr), lock.Options{})
			held := mustAcquire(t, all[0], request("process:1", alice))
			type grant struct {
				who  string
				lock lock.Lock
			}
			grants := make(chan grant, 3)
			var instances, firsts string
			for i, w := range []struct {
				who string
				l   *lock.Locker
			}{{"first", first}, {"second", all[0]}, {"third", all[1]}} {
				go func() {
					taken, err := w.l.Acquire(t.Context(), request("process:1", bob))
					if err != nil {
						t.Error(err)
					}
					grants <- grant{w.who, taken}
				}()
				waitFor(t, all[0], i+1)
				if i == 0 {
					instances = server.Do("KEYS", "test:*}instances")
					firsts = server.Do("ZRANGE", instances, "0", "0")
				}
			}
			proxy.Stall()
			stalled := time.Now()
			pause(t.Context(), row.silent)
			if _, err := all[0].Release(t.Context(), held.Claim); err != nil {
				t.Fatal(err)
			}
			second := <-grants
			pause(t.Context(), time.Until(stalled.Add(400*time.Millisecond)))
			proxy.Resume()
			waitFor(t, all[0], 2) // the first and the third
			servicestest.Eventually(t, func() bool {
				ms, err := strconv.Atoi(server.Do("EVAL", silence, "1", instances, firsts))
				return err == nil && ms < 50 // or it would be passed over again
			}, "the first is still silent")
			order := []string{second.who}
			for next := second; len(order) < 3; {
				if _, err := all[0].Release(t.Context(), next.lock.Claim); err != nil {
					t.Fatal(err)
				}
				next = <-grants
				order = append(order, next.who)
			}
			if got := strings.Join(order, " "); got != "second first third" {
				t.Errorf("the order is %s", got)
			}
		})
	}
}
