package lock

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// outage is one instance that loses its Redis, which the test freezes or kills, and another that
// looks what has become of the locks.
type outage struct {
	*Locker
	t      *testing.T
	server *servicestest.RedisServer
	other  *Locker
	lost   *prometheus.Registry // of the first
}

func newOutage(t *testing.T, onDown models.OnRedisDown) outage {
	t.Helper()
	t.Parallel()
	server, registry := servicestest.StartRedis(t), prometheus.NewRegistry()
	l := at(t, server.Addr, impatient, Options{OnRedisDown: onDown, Metrics: registry})
	return outage{l, t, server, at(t, server.Addr, patient, Options{}), registry}
}

// begin takes Redis away: frozen, or killed with its data.
func (o outage) begin(frozen bool) {
	o.t.Helper()
	if frozen {
		o.server.Freeze()
	} else {
		o.server.Kill()
	}
	gone(o.t, o.Locker)
}

func (o outage) end(frozen bool) {
	o.t.Helper()
	if frozen {
		o.server.Thaw()
	} else {
		o.server.Start()
	}
	back(o.t, o.Locker)
	back(o.t, o.other)
}

// faults are the ways to lose Redis: true is frozen.
var faults = map[string]bool{"frozen": true, "killed": false}

func TestOutage(t *testing.T) {
	t.Parallel()
	for fault, frozen := range faults {
		t.Run("locks of before it and of it stay, "+fault, func(t *testing.T) {
			o := newOutage(t, models.OnRedisDownOpen)
			before := takeInRedis(t, o.Locker, request("before", alice))
			o.begin(frozen)
			during := take(t, o.Locker, request("during", alice))
			if !during.Degraded {
				t.Errorf("granted in the outage: %+v", during)
			}
			if degraded, err := o.Check(t.Context(), before.Claim); err != nil || !degraded {
				t.Errorf("a grant from before the outage: %v, %v", degraded, err)
			}
			o.end(frozen)
			for _, taken := range []Lock{before, during} {
				wantHolder(t, o.other, taken)
			}
		})
		t.Run("what a closed Locker gave back stays given back, "+fault, func(t *testing.T) {
			// It is in the outbox: it is neither reasserted, nor logged as a conflict.
			o := newOutage(t, models.OnRedisDownClosed)
			taken := takeInRedis(t, o.Locker, request("released", alice))
			err := o.WithLock(t.Context(), request("worked", alice), func(context.Context, Lock) error {
				o.begin(frozen)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := o.Release(t.Context(), taken.Claim); !errors.Is(err, models.ErrUnavailable) {
				t.Fatalf("release: %v", err)
			}
			o.end(frozen)
			wantFree(t, o.other, "released")
			wantFree(t, o.other, "worked")
			wantCounters(t, o.lost, map[string]float64{"conflicts": 0})
		})
	}
	t.Run("leaves no lock without a holder", func(t *testing.T) {
		o := newOutage(t, models.OnRedisDownOpen)
		closed := New(o.redis, Options{})
		held := takeInRedis(t, o.Locker, request("released", alice))
		forced := takeInRedis(t, o.Locker, request("forced", alice))
		o.server.Freeze()
		// Sent, never answered, and executed at the thaw.
		if _, err := closed.TryAcquire(t.Context(), request("unanswered", bob)); !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("acquire while frozen: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := o.TryAcquire(ctx, request("left", bob)); err == nil {
			t.Error("an acquire whose caller left succeeded")
		}
		giveBack(t, o.Locker, held)
		if _, err := o.ForceRelease(t.Context(), "forced", forced.Fence); err != nil {
			t.Errorf("force while frozen: %v", err)
		}
		gone(t, o.Locker)
		o.end(true)
		for _, resource := range []string{"released", "forced", "unanswered", "left"} {
			wantFree(t, o.other, resource)
		}
	})
	t.Run("a release that was refused has no effect", func(t *testing.T) {
		o := newOutage(t, models.OnRedisDownOpen)
		held := takeInRedis(t, o.Locker, request("r", alice))
		o.begin(true)
		wrong := held.Claim
		wrong.Token = newToken()
		if _, err := o.Release(t.Context(), wrong); !errors.Is(err, models.ErrNotHeld) {
			t.Errorf("release with another token: %v", err)
		}
		o.end(true)
		wantHolder(t, o.Locker, held)
	})
	for name, end := range endings {
		t.Run("a lock taken after it was "+name+" stays", func(t *testing.T) {
			// The end is sent before what was granted then is reasserted: else that would be refused, as the
			// first holder seems to have the lock.
			o := newOutage(t, models.OnRedisDownOpen)
			first := takeInRedis(t, o.Locker, request("r", alice))
			o.begin(true)
			end(t, o.Locker, first)
			second := take(t, o.Locker, request("r", bob))
			o.end(true)
			wantHolder(t, o.other, second)
		})
	}
	t.Run("a lock forced twice is free", func(t *testing.T) {
		// The lock from before the outage and the one granted in it are both over.
		o := newOutage(t, models.OnRedisDownOpen)
		takeInRedis(t, o.Locker, request("r", alice))
		o.begin(true)
		for range 2 {
			force(t, o.Locker, "r")
			take(t, o.Locker, request("r", bob))
		}
		force(t, o.Locker, "r")
		o.end(true)
		wantFree(t, o.other, "r")
	})
	t.Run("the locks of a user who was disabled end", func(t *testing.T) {
		o := newOutage(t, models.OnRedisDownOpen)
		take(t, o.other, request("r", alice)) // which the first has not granted
		o.begin(true)
		if _, err := o.ReleaseUser(t.Context(), alice.UserID); err != nil {
			t.Fatal(err)
		}
		o.end(true)
		wantFree(t, o.other, "r")
	})
	t.Run("of two holders one loses, and learns of it", func(t *testing.T) {
		o := newOutage(t, models.OnRedisDownOpen)
		registry := prometheus.NewRegistry()
		way := servicestest.NewProxy(t, o.server.Addr)
		l := apart{at(t, way.Addr, patient, Options{OnRedisDown: models.OnRedisDownOpen, Metrics: registry}), t, way}
		l.cut()
		loser := take(t, l.Locker, request("r", alice))
		winner := take(t, o.other, request("r", bob))
		l.restore()
		var notHeld *models.NotHeldError
		if _, err := l.Check(t.Context(), loser.Claim); !errors.As(err, &notHeld) || notHeld.Status.Holder.Email != bob.Email {
			t.Errorf("the loser: %v", err)
		}
		wantHolder(t, o.other, winner)
		wantCounters(t, registry, map[string]float64{"conflicts": 1, "operations acquire degraded": 1, "operations check refused": 1})
	})
	t.Run("what was given back elsewhere before it stays given back", func(t *testing.T) {
		// What other instances do to a lock, the one that granted it follows: else it would reassert a
		// released lock, or refuse its next holder.
		o := newOutage(t, models.OnRedisDownOpen)
		first := takeInRedis(t, o.Locker, request("r", alice))
		giveBack(t, o.other, first)
		servicestest.Eventually(t, func() bool { return len(o.known()) == 0 }, "the granter does not hear of the release")
		take(t, o.other, request("r", bob))
		second := o.other.mustStatus(t, "r")
		o.begin(true)
		if degraded, err := o.Check(t.Context(), Claim{Resource: "r", Grant: second.Grant, Token: "verified"}); err != nil || !degraded {
			t.Errorf("the next holder is refused: %v, %v", degraded, err)
		}
		o.server.Thaw()
	})
	for _, onDown := range []models.OnRedisDown{models.OnRedisDownOpen, models.OnRedisDownClosed} {
		t.Run(fmt.Sprintf("begun while a user's locks are ended, %s", onDown), func(t *testing.T) {
			// The others end when Redis is back, whatever the instance knows of them.
			o := newOutage(t, onDown)
			for i := range 40 {
				take(t, o.other, request(fmt.Sprint("process:", i), alice))
			}
			forced := o.Events(t.Context())
			frozen := make(chan struct{})
			go func() {
				defer close(frozen)
				<-forced
				o.server.Freeze()
			}()
			_, err := o.ReleaseUser(t.Context(), alice.UserID)
			if err != nil && (onDown == models.OnRedisDownOpen || !errors.Is(err, models.ErrUnavailable)) {
				t.Error(err)
			}
			<-frozen
			o.server.Thaw()
			servicestest.Eventually(t, func() bool {
				locks, _, err := o.other.List(t.Context(), models.Page{Limit: 100})
				return err == nil && len(locks.Items) == 0
			}, "locks of the disabled user stay")
		})
	}
}

// An attempt whose reply was lost waits in the outbox. If its client has repeated it meanwhile and
// has the grant, here or at another instance, that is not given back under it.
func TestOutboxKeepsWhatWasRepeated(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	all := instances(t, server, 2)
	l := all[0]
	for name, second := range map[string]*Locker{"here": l, "elsewhere": all[1]} {
		req := request(name, alice)
		req.Token = newToken()
		lost := l.newAttempt(req)
		if _, err := lost.once(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if name == "here" {
			l.abandonLater(lost)
		}
		taken := take(t, second, req)
		if !taken.Repeated {
			t.Fatalf("%+v", taken)
		}
		if name == "elsewhere" {
			l.giveUp(t.Context(), lost)
		}
		l.flush(t.Context())
		wantHolder(t, second, taken)
		giveBack(t, second, taken)
	}
}
