package lock

import (
	"errors"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// twoApart are two instances that lose Redis one without the other, and a third that does not.
type twoApart struct {
	granter, extender apart
	server            *servicestest.RedisServer
	other             *Locker
}

func newTwoApart(t *testing.T) twoApart {
	t.Helper()
	t.Parallel()
	server := servicestest.StartRedis(t)
	return twoApart{openApart(t, server), openApart(t, server), server, openAt(t, server.Addr)}
}

// A grant that one instance made another extends without Redis: it adopts it.
func TestAdopted(t *testing.T) {
	t.Parallel()
	for name, end := range endings {
		t.Run("ended where it was granted, it stays ended: "+name, func(t *testing.T) {
			w := newTwoApart(t)
			taken := take(t, w.granter.Locker, request("r", alice))
			observed(t, w.extender.Locker, "r")
			w.extender.cut()
			extend(t, w.extender.Locker, taken, time.Hour)
			end(t, w.granter.Locker, taken)
			w.extender.restore()
			servicestest.Eventually(t, func() bool { return len(w.extender.known()) == 0 }, "it is still believed")
			wantFree(t, w.other, "r")
		})
		for after, lose := range map[string]func(testing.TB, twoApart){
			"emptied":            func(_ testing.TB, w twoApart) { w.server.Do("FLUSHALL") },
			"the lease was over": func(t testing.TB, w twoApart) { endLeases(t, w.server, w.other, "r") },
		} {
			t.Run("ended in the outage, it is not reasserted by the extender: "+name+", "+after, func(t *testing.T) {
				// Neither instance knows of the other, nor can the server know that the grant was not lost.
				w := newTwoApart(t)
				taken := take(t, w.granter.Locker, request("r", alice))
				w.granter.cut()
				w.extender.cut()
				extend(t, w.extender.Locker, taken, time.Hour)
				end(t, w.granter.Locker, taken)
				lose(t, w)
				w.granter.restore()
				w.extender.restore()
				wantFree(t, w.other, "r")
			})
		}
	}
	for name, row := range map[string]struct{ extended, holderFirst bool }{
		"given back at the other, which returns first":              {false, false},
		"given back at the other, which returns last":               {false, true},
		"extended and given back at the other, which returns first": {true, false},
		"extended and given back at the other, which returns last":  {true, true},
	} {
		t.Run("granted without Redis and "+name, func(t *testing.T) {
			w := newTwoApart(t)
			w.granter.cut()
			w.extender.cut()
			taken := take(t, w.granter.Locker, request("r", alice))
			if row.extended {
				extend(t, w.extender.Locker, taken, time.Hour)
			}
			giveBack(t, w.extender.Locker, taken)
			order := []apart{w.extender, w.granter}
			if row.holderFirst {
				order = []apart{w.granter, w.extender}
			}
			for _, l := range order {
				l.restore()
			}
			wantFree(t, w.other, "r")
		})
	}
	t.Run("is reasserted for its holder, and from its beginning", func(t *testing.T) {
		w := newTwoApart(t)
		taken := take(t, w.granter.Locker, request("r", alice))
		if err := w.granter.redis.Close(t.Context()); err != nil { // it does not reassert the grant itself
			t.Fatal(err)
		}
		observed(t, w.extender.Locker, "r")
		w.extender.cut()
		holder := taken.Holder
		holder.Since = holder.Since.Add(-10 * time.Minute) // as its token says
		if _, err := w.extender.ExtendFor(t.Context(), taken.Claim, holder, time.Hour); err != nil {
			t.Fatal(err)
		}
		w.server.Do("FLUSHALL")
		w.extender.restore()
		if s := w.other.mustStatus(t, "r"); s.Holder.Email != holder.Email || s.Holder.UserID != holder.UserID ||
			s.Holder.Since.Sub(holder.Since).Abs() > time.Minute || s.TTL > 50*time.Minute {
			t.Errorf("%+v", s)
		}
	})
	t.Run("gets its holder back from the instance that made it", func(t *testing.T) {
		w := newTwoApart(t)
		w.granter.cut()
		w.extender.cut()
		taken := take(t, w.granter.Locker, request("r", alice))
		extend(t, w.extender.Locker, taken, time.Hour)
		w.extender.table.mu.Lock()
		w.extender.table.locks["r"].epoch = "forgotten"
		w.extender.table.mu.Unlock()
		w.extender.restore()
		before := w.other.mustStatus(t, "r")
		if before.Grant != taken.Grant {
			t.Fatalf("not reasserted: %+v", before)
		}
		w.granter.restore()
		for _, l := range []*Locker{w.granter.Locker, w.extender.Locker, w.other} {
			if s := l.mustStatus(t, "r"); s.Holder.Email != alice.Email || s.Holder.Reason != alice.Reason || *s.Fence != *before.Fence {
				t.Errorf("%+v", s)
			}
		}
		if all := listed(t, w.other, 10); len(all) != 1 || all[0].Holder.Email != alice.Email {
			t.Errorf("listed: %+v", all)
		}
		giveBack(t, w.extender.Locker, taken)
		if all := listed(t, w.other, 10); len(all) != 0 {
			t.Errorf("listed after the release: %+v", all)
		}
	})
	t.Run("granted to one token by two instances, it is kept by the first to return", func(t *testing.T) {
		// A client that repeats its request is sent to either. The other does not give it back by the token
		// that both have.
		w := newTwoApart(t)
		w.granter.cut()
		w.extender.cut()
		req := request("r", alice)
		req.Token = newToken()
		first, second := take(t, w.granter.Locker, req), take(t, w.extender.Locker, req)
		w.granter.restore()
		w.extender.restore()
		wantHolder(t, w.granter.Locker, first)
		if _, err := w.extender.Check(t.Context(), second.Claim); !errors.Is(err, models.ErrNotHeld) {
			t.Errorf("the second: %v", err)
		}
		if s := w.other.mustStatus(t, "r"); s.Grant != first.Grant {
			t.Errorf("held: %+v", s)
		}
	})
	t.Run("of a user whom another instance disabled, it ends when it is reasserted", func(t *testing.T) {
		// Redis does not come back to all instances at once.
		w := newTwoApart(t)
		disabler := w.extender
		w.granter.cut()
		disabler.cut()
		take(t, w.granter.Locker, request("r", alice))
		if _, err := disabler.ReleaseUser(t.Context(), alice.UserID); err != nil {
			t.Fatal(err)
		}
		disabler.restore()
		w.granter.restore()
		servicestest.Eventually(t, func() bool {
			return !w.other.mustStatus(t, "r").Held && len(w.granter.known()) == 0
		}, "the lock of the disabled user stays")
		servicestest.Eventually(t, func() bool {
			disabler.table.mu.Lock()
			defer disabler.table.mu.Unlock()
			return len(disabler.table.outbox) == 0
		}, "his locks are looked for, for ever")
	})
}
