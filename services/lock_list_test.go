package services_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// listing is locks of two editors, made one after the other.
type listing struct {
	desk
	alice, bob models.UserRef
	names      map[string]string // title by resource
}

// newListing locks the processes barn, shed and hedge for alice, gate and roof for bob. Others wait
// for the shed and, two of them, for the gate.
func newListing(t *testing.T) listing {
	t.Helper()
	d, alice, bob, _ := office(t)
	l := listing{desk: d, alice: alice, bob: bob, names: map[string]string{}}
	for i, title := range []string{"barn", "gate", "shed", "roof", "hedge"} {
		user := []models.UserRef{alice, bob}[i%2]
		process := must(d.Create(t.Context(), alice, models.ProcessFields{Title: "The " + strings.ToUpper(title), Status: "draft"}))
		l.names[services.Resource(process.ID)] = title
		ttl := time.Duration(60-i) * time.Minute
		must(d.Lock(t.Context(), user, process.ID, services.ProcessLockOptions{Reason: "Reason " + title, TTL: ttl}))
		for range map[string]int{"shed": 1, "gate": 2}[title] {
			l.wait(t, services.Resource(process.ID))
		}
		servicestest.Eventually(t, func() bool { // the next one is of another millisecond
			return time.Since(must(d.LockStatus(t.Context(), models.UserRef{}, process.ID)).Holder.Since) > 2*time.Millisecond
		}, "time stands still")
	}
	return l
}

// wait queues until the test ends.
func (l listing) wait(t *testing.T, resource string) {
	t.Helper()
	before := must(l.locks.Status(t.Context(), resource)).Waiting
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = l.locks.Acquire(ctx, lock.Request{Resource: resource})
	}()
	t.Cleanup(func() {
		leave()
		<-left
	})
	servicestest.Eventually(t, func() bool { return must(l.locks.Status(t.Context(), resource)).Waiting > before }, "no waiter")
}

// pages are the titles that a query of a user finds, page by page.
func (l listing) pages(t *testing.T, user models.UserRef, q services.LockQuery, limit int) (titles []string, count int) {
	t.Helper()
	for q.Limit = limit; ; {
		list, err := l.Locks(t.Context(), user, q)
		if err != nil || list.Degraded || len(list.Items) > limit {
			t.Fatalf("%+v: %d items, %+v, %v", q, len(list.Items), list, err)
		}
		for _, item := range list.Items {
			if name := l.names[item.Resource]; item.Title != "The "+strings.ToUpper(name) || item.Mine != (item.Holder.UserID == user.ID) {
				t.Errorf("%s: %+v", name, item)
			}
			titles = append(titles, l.names[item.Resource])
		}
		if list.NextCursor == nil {
			return titles, list.Count
		}
		q.Cursor = *list.NextCursor
	}
}

func TestListOfLocks(t *testing.T) {
	t.Parallel()
	l := newListing(t)
	nobody := models.UserRef{}

	t.Run("orders, selects and pages", func(t *testing.T) {
		for _, row := range []struct {
			user  models.UserRef
			query services.LockQuery
			want  string
		}{
			{l.alice, services.LockQuery{}, "shed hedge barn gate roof"},
			{l.bob, services.LockQuery{}, "gate roof shed hedge barn"},
			{nobody, services.LockQuery{}, "shed gate hedge roof barn"},
			{l.bob, services.LockQuery{Sort: "since"}, "barn gate shed roof hedge"},
			{l.bob, services.LockQuery{Sort: "-since"}, "hedge roof shed gate barn"},
			{l.bob, services.LockQuery{Sort: "expiresAt"}, "hedge roof shed gate barn"},
			{l.alice, services.LockQuery{Sort: "waiting"}, "gate shed hedge roof barn"},
			{l.alice, services.LockQuery{Sort: "resource"}, "barn gate shed roof hedge"},
			{l.alice, services.LockQuery{Mine: true}, "shed hedge barn"},
			{nobody, services.LockQuery{Mine: true}, ""},
			{l.alice, services.LockQuery{Waiting: true}, "shed gate"},
			{l.alice, services.LockQuery{Waiting: true, Mine: true}, "shed"},
			{l.alice, services.LockQuery{Text: "the b"}, "barn"},
			{l.alice, services.LockQuery{Text: "REASON ROOF"}, "roof"},
			{l.alice, services.LockQuery{Text: "Bob@"}, "gate roof"},
			{l.alice, services.LockQuery{Text: "process:", Waiting: true}, "shed gate"},
			{l.alice, services.LockQuery{Text: "nothing"}, ""},
			{l.alice, services.LockQuery{Text: `%`}, ""},
		} {
			want := strings.Fields(row.want)
			for _, limit := range []int{1, 2, 50} {
				if got, count := l.pages(t, row.user, row.query, limit); !slices.Equal(got, want) || count != len(want) {
					t.Errorf("%s, %+v, %d a page: %v (%d), want %v", row.user.Email, row.query, limit, got, count, want)
				}
			}
		}
	})

	t.Run("has a page if nothing is said", func(t *testing.T) {
		if list := must(l.Locks(t.Context(), l.alice, services.LockQuery{})); len(list.Items) != 5 || list.NextCursor != nil {
			t.Errorf("%+v", list)
		}
	})

	t.Run("refuses a cursor of another order, or none of its own", func(t *testing.T) {
		first := must(l.Locks(t.Context(), l.alice, services.LockQuery{Page: models.Page{Limit: 1}}))
		for _, cursor := range []string{*first.NextCursor, "x", "e30", "bnVsbA", strings.Repeat("A", 4000)} {
			q := services.LockQuery{Page: models.Page{Limit: 1, Cursor: cursor}, Sort: "since"}
			if _, err := l.Locks(t.Context(), l.alice, q); !errors.Is(err, models.ErrBadCursor) {
				t.Errorf("%.20q: %v", cursor, err)
			}
		}
	})

	t.Run("leaves out no other lock when one changes its place between two pages", func(t *testing.T) {
		q := services.LockQuery{Page: models.Page{Limit: 2}}
		first := must(l.Locks(t.Context(), nobody, q)) // shed and gate
		q.Cursor = *first.NextCursor
		for resource, name := range l.names {
			if name == "roof" {
				l.wait(t, resource) // moves before the cursor
			}
		}
		var got []string
		for _, item := range must(l.Locks(t.Context(), nobody, q)).Items {
			got = append(got, l.names[item.Resource])
		}
		if !slices.Equal(got, []string{"hedge", "barn"}) {
			t.Errorf("the second page is %v", got)
		}
	})

	t.Run("without the database it has no titles, and finds none", func(t *testing.T) {
		l.Processes = newProcesses(noTitles{l.store}, l.locks)
		list, err := l.Locks(t.Context(), l.alice, services.LockQuery{Page: models.Page{Limit: 50}})
		if err != nil || len(list.Items) != 5 || list.Items[0].Title != "" {
			t.Errorf("%+v, %v", list, err)
		}
		if _, err := l.Locks(t.Context(), l.alice, services.LockQuery{Page: models.Page{Limit: 50}, Text: "barn"}); !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("a search: %v", err)
		}
	})
}

// noTitles is a database that answers nothing about titles.
type noTitles struct{ services.ProcessStore }

func (noTitles) Titles(context.Context, []string) (map[string]string, error) {
	return nil, models.ErrUnavailable
}

// BenchmarkListOfLocks is a page of 50 among many locks, with and without a search.
func BenchmarkListOfLocks(b *testing.B) {
	for _, held := range []int{100, 10_000} {
		d := newDesk(b, redistest.New(b, servicestest.StartRedis(b).Addr), openStore(b, newDatabase(b)))
		for i := range held {
			must(d.locks.TryAcquire(b.Context(), lockRequest(fmt.Sprint("process:", i+1))))
		}
		for name, text := range map[string]string{"page": "", "search": "alice"} {
			b.Run(fmt.Sprintf("%s of %d", name, held), func(b *testing.B) {
				for b.Loop() {
					must(d.Locks(b.Context(), models.UserRef{ID: "1"}, services.LockQuery{Page: models.Page{Limit: 50}, Text: text}))
				}
			})
		}
	}
}
