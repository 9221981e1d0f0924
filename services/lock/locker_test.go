package lock

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
)

// A lock as its callers see it, on both servers.
func TestLocker(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		l, other := New(rdb, Options{}), New(rdb, Options{})

		t.Run("excludes over all instances", func(t *testing.T) {
			taken := take(t, l, request("excluded", alice))
			if taken.Fence == nil || taken.Degraded || taken.Repeated || taken.TTL > time.Minute || taken.TTL < 59*time.Second {
				t.Errorf("lock = %+v", taken)
			}
			if s := wantRefused(t, other, "excluded"); s.Holder.Email != alice.Email || s.Holder.Reason != alice.Reason || s.TTL <= 0 || s.TTL > time.Minute {
				t.Errorf("refused by %+v", s)
			}
			giveBack(t, other, taken) // any instance, with the token
			second := take(t, other, request("excluded", bob))
			if *second.Fence <= *taken.Fence {
				t.Errorf("fence %d after %d", *second.Fence, *taken.Fence)
			}
			if _, err := l.Release(t.Context(), taken.Claim); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("a finished lock released its successor: %v", err)
			}
		})

		t.Run("serves only the right token, and the right fence", func(t *testing.T) {
			taken := take(t, l, request("forged", alice))
			forged := taken.Claim
			forged.Token = newToken()
			var notHeld *models.NotHeldError
			if _, err := l.Extend(t.Context(), forged, time.Hour); !errors.As(err, &notHeld) || notHeld.Status.Holder.UserID != alice.UserID {
				t.Errorf("extend with a forged token: %v", err)
			}
			if _, err := l.Release(t.Context(), forged); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("release with a forged token: %v", err)
			}
			if _, err := l.Check(t.Context(), forged); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("check of a forged token: %v", err)
			}
			wantHolder(t, l, taken)
			if extended := extend(t, l, taken, time.Hour/2); extended.TTL < 29*time.Minute || *extended.Fence != *taken.Fence {
				t.Errorf("extended: %+v", extended)
			}
			wrong := *taken.Fence + 1
			if _, err := l.ForceRelease(t.Context(), "forged", &wrong); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("force with another fence: %v", err)
			}
			if was, err := l.ForceRelease(t.Context(), "forged", taken.Fence); err != nil || was.Holder.Email != alice.Email {
				t.Errorf("force: %+v, %v", was, err)
			}
			if _, err := l.ForceRelease(t.Context(), "forged", nil); !errors.Is(err, models.ErrNotFound) {
				t.Errorf("force of a free lock: %v", err)
			}
			if s := l.mustStatus(t, "forged"); s.Held || s.TTL != 0 {
				t.Errorf("status after force: %+v", s)
			}
		})

		t.Run("gives one token one grant", func(t *testing.T) {
			req := request("repeated", alice)
			req.Token = newToken()
			first := take(t, l, req)
			again := take(t, l, req)
			if again.Grant != first.Grant || *again.Fence != *first.Fence || !again.Repeated || again.TTL > first.TTL {
				t.Errorf("first %+v, again %+v", first, again)
			}
			for _, text := range []string{"one", "two"} {
				if kept, err := l.Metadata(t.Context(), again, text); kept != "one" || err != nil {
					t.Errorf("metadata is %q, %v: the first one stays", kept, err)
				}
			}
			if again := take(t, l, req); again.Metadata != "one" {
				t.Errorf("repeated, it brings metadata %q", again.Metadata)
			}
			giveBack(t, l, first)
			if next := take(t, l, req); next.Grant == first.Grant {
				t.Error("a grant came back after its release")
			}
			if _, err := l.Check(t.Context(), first.Claim); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("the old grant passes with the reused token: %v", err)
			}
		})

		t.Run("takes a TTL of nothing or less for the default", func(t *testing.T) {
			for _, ttl := range []time.Duration{0, -time.Second} {
				taken := take(t, l, requestFor("default", alice, ttl))
				if taken.TTL != DefaultTTL {
					t.Errorf("%v: locked for %v", ttl, taken.TTL)
				}
				if extended := extend(t, l, taken, ttl); extended.TTL != DefaultTTL {
					t.Errorf("%v: extended for %v", ttl, extended.TTL)
				}
				giveBack(t, l, taken)
			}
		})

		t.Run("frees what expires, and publishes that", func(t *testing.T) {
			events := listen(t, l)
			taken := take(t, l, requestFor("expired", alice, 50*time.Millisecond))
			servicestest.Within(t, time.Second, func() bool { return !other.mustStatus(t, "expired").Held }, "an expired lock is not free")
			if _, err := l.Extend(t.Context(), taken.Claim, time.Second); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("extend after expiry: %v", err)
			}
			take(t, other, request("expired", bob))
			events.until(models.LockExpired, "expired")
		})

		t.Run("ends no later than MaxHold", func(t *testing.T) {
			capped := New(rdb, Options{MaxHold: time.Minute})
			taken := take(t, capped, requestFor("capped", alice, time.Hour))
			if taken.TTL > time.Minute {
				t.Errorf("locked for %v", taken.TTL)
			}
			pause(t.Context(), 2*time.Millisecond)
			if extended := extend(t, capped, taken, time.Hour); extended.TTL >= time.Minute || extended.TTL < 30*time.Second {
				t.Errorf("extended for %v", extended.TTL)
			}
			late := New(rdb, Options{MaxHold: time.Millisecond}) // as when the longest hold has passed
			if _, err := late.Extend(t.Context(), taken.Claim, time.Hour); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("extended after MaxHold: %v", err)
			}
			wantFree(t, capped, "capped")
		})
	})
}

// Names and holders are text of the caller's; the scripts find the parts of a grant by their
// lengths.
func TestNames(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		a, b := New(rdb, Options{}), New(rdb, Options{})
		holders := []models.Holder{bob, {}, {UserID: "3:a", Email: "\x00\n", Reason: "\"\\{}[]\u2028<>&"}}
		for i, resource := range []string{
			"process:1", "3:abc", "", "12:", ":", "a\nb", "\x00", "ünïcode 火", "{x}", "}{", "%d%s", `a"b\c`, "+x", "?y", strings.Repeat("x", 10_000),
		} {
			for j, holder := range holders {
				if rdb.Embedded() && i%len(holders) != j { // its scripts take long here
					continue
				}
				t.Run(fmt.Sprintf("%.20q of %q", resource, holder.UserID), func(t *testing.T) { lockByName(t, a, b, resource, holder) })
			}
		}
	})
}

func lockByName(t *testing.T, a, b *Locker, resource string, holder models.Holder) {
	t.Helper()
	first := take(t, a, request(resource, alice))
	next := queueFor(t.Context(), t, b, request(resource, holder))
	if text, err := a.Metadata(t.Context(), first, resource); err != nil || text != resource {
		t.Errorf("metadata %.20q, %v", text, err)
	}
	giveBack(t, a, first)
	taken := <-next
	holder.Since = taken.Holder.Since
	if taken.Holder != holder || taken.Metadata != "" {
		t.Errorf("held by %+v with metadata %q", taken.Holder, taken.Metadata)
	}
	locks, _, err := a.List(t.Context(), models.Page{Limit: 10})
	if err != nil || len(locks.Items) != 1 || locks.Items[0].Resource != resource || locks.Items[0].Holder != holder {
		t.Errorf("listed %+v, %v", locks.Items, err)
	}
	force(t, a, resource)
}

func TestList(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	all := instances(t, server, 2)
	const locks = 44
	var want []string
	for i := range locks {
		resource := fmt.Sprintf("process:%d", i)
		take(t, all[i%2], request(resource, models.Holder{UserID: fmt.Sprint(i % 2), Email: alice.Email}))
		want = append(want, resource)
	}
	slices.Sort(want)

	t.Run("pages through all locks", func(t *testing.T) {
		got := listed(t, all[0], 7)
		resources := make([]string, 0, len(got))
		for _, item := range got {
			resources = append(resources, item.Resource)
			if item.Holder.Email != alice.Email || item.Fence == nil || item.TTL <= 0 {
				t.Errorf("item %+v", item)
			}
		}
		if slices.Sort(resources); !slices.Equal(resources, want) {
			t.Errorf("listed %d of %d: %v", len(got), len(want), got)
		}
	})

	t.Run("has pages of 50 if nothing is said", func(t *testing.T) {
		for i := range 50 - locks + 1 {
			take(t, all[0], request(fmt.Sprint("more:", i), models.Holder{UserID: "more"}))
		}
		page, _, err := all[0].List(t.Context(), models.Page{})
		if err != nil || len(page.Items) != 50 || page.NextCursor == nil {
			t.Fatalf("%d locks, %v", len(page.Items), err)
		}
		rest, _, err := all[0].List(t.Context(), models.Page{Cursor: *page.NextCursor})
		if err != nil || len(rest.Items) != 1 || rest.NextCursor != nil {
			t.Errorf("%d more, %v", len(rest.Items), err)
		}
		if _, err := all[0].ReleaseUser(t.Context(), "more"); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("refuses a cursor that it did not make", func(t *testing.T) {
		for _, cursor := range []string{"x", "e30", strings.Repeat("A", 40)} {
			if _, _, err := all[0].List(t.Context(), models.Page{Limit: 1, Cursor: cursor}); !errors.Is(err, models.ErrBadCursor) {
				t.Errorf("cursor %q: %v", cursor, err)
			}
		}
	})

	t.Run("leaves out what the server evicted, as the counts do", func(t *testing.T) {
		for i := 0; i < locks; i += 4 {
			server.Do("DEL", all[0].keys.of(fmt.Sprint("process:", i))[0])
		}
		left := map[string]bool{}
		for _, item := range listed(t, all[0], 7) {
			left[item.Resource] = true
		}
		for i := range locks {
			if resource := fmt.Sprint("process:", i); left[resource] == (i%4 == 0) {
				t.Errorf("%s: listed %t", resource, left[resource])
			}
		}
		for user, held := range map[string]int{"0": locks / 4, "1": locks / 2} {
			if !all[0].HoldsMore(t.Context(), user, held-1) || all[0].HoldsMore(t.Context(), user, held) {
				t.Errorf("user %s has %d locks", user, held)
			}
		}
	})

	t.Run("is empty of a user whose locks were ended", func(t *testing.T) {
		if _, err := all[0].ReleaseUser(t.Context(), "0"); err != nil {
			t.Fatal(err)
		}
		if got := listed(t, all[1], 200); len(got) != locks/2 {
			t.Errorf("%d locks left", len(got))
		}
	})
}

// listed are all locks, by pages.
func listed(t *testing.T, l *Locker, limit int) (all []models.LockStatus) {
	t.Helper()
	for page := (models.Page{Limit: limit}); ; {
		found, degraded, err := l.List(t.Context(), page)
		if err != nil || degraded || len(found.Items) > limit {
			t.Fatalf("%d items, degraded %t, %v", len(found.Items), degraded, err)
		}
		all = append(all, found.Items...)
		if found.NextCursor == nil {
			return all
		}
		page.Cursor = *found.NextCursor
	}
}
