package services

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
)

// LockSorts are the orders in which the locks can be listed. The default, "", is mine first, then
// those that are waited for, then the newest.
var LockSorts = [...]string{"since", "-since", "expiresAt", "waiting", "resource"}

// extrasTimeout limits the look-up of titles, and of requests, where a list is useful without them.
const extrasTimeout = 300 * time.Millisecond

// LockQuery selects locks, and the page of them to return. The zero value is the first page of all.
type LockQuery struct {
	models.Page
	Text    string // in the title, the holder's address, the reason or the resource, in any case; "" is any
	Mine    bool   // only the user's own
	Waiting bool   // only those that are waited for, or asked for
	Sort    string // one of LockSorts, or ""
}

// ListedLock is a lock with the title of its process, "" if that is not known. Waiting counts those
// who asked for it, too.
type ListedLock struct {
	lock.Listed
	Title string
	Mine  bool // the user holds it, in whichever session
}

// LockList is a page of locks.
type LockList struct {
	models.List[ListedLock]
	Count    int  // of the locks that the query selects, on all pages
	Degraded bool // what this instance knows, without Redis
}

// Locks lists the locks held now. A lock that changes its place between two pages, as one does that
// is extended when the order is expiresAt, may come twice or not at all; no other that stays is
// left out. Errors:
//
//   - models.ErrBadCursor: the cursor is not one of this order,
//   - models.ErrUnavailable: without Redis where locks are closed then; and with a Text, which
//     needs the titles, without the database.
//
// Without the database the titles are left out, and those who asked are not counted. It costs time
// and memory in proportion to the number of locks, and with a Text a look-up of each title: about
// 10 ms for each 1,000 locks.
func (p *Processes) Locks(ctx context.Context, user models.UserRef, q LockQuery) (LockList, error) {
	after, err := readLockCursor(q.Sort, q.Cursor)
	if err != nil {
		return LockList{}, err
	}
	all, degraded, err := p.locks.All(ctx)
	if err != nil {
		return LockList{}, err
	}
	var asked map[string]int
	if len(all) > 0 {
		asked = p.pendingCounts(ctx)
	}
	for i := range all {
		all[i].Waiting += asked[processOf(all[i].Resource)]
	}
	found, err := p.selectLocks(ctx, user, q, all)
	if err != nil {
		return LockList{}, err
	}
	if q.Limit <= 0 {
		q.Limit = models.DefaultLimit
	}
	list := LockList{Count: len(found), Degraded: degraded}
	list.Items, list.NextCursor = pageOfLocks(found, q, after)
	if q.Text == "" { // else they have them
		ctx, cancel := context.WithTimeout(ctx, extrasTimeout)
		defer cancel()
		_ = p.addTitles(ctx, list.Items) // without the database they are left out
	}
	return list, nil
}

// LockStatuses returns how locks stand, in the order of the resources. Waiting counts those who
// asked for a lock, too, as everywhere; without the database they are left out. Errors are those of
// lock.Locker.Statuses.
func (p *Processes) LockStatuses(ctx context.Context, resources ...string) ([]models.LockStatus, error) {
	statuses, err := p.locks.Statuses(ctx, resources)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(statuses, func(status models.LockStatus) bool { return status.Held }) {
		return statuses, nil
	}
	asked := p.pendingCounts(ctx)
	for i, status := range statuses {
		if status.Held {
			statuses[i].Waiting += asked[processOf(resources[i])]
		}
	}
	return statuses, nil
}

// processOf is the id of the process whose lock it is; of another resource, no process has it.
func processOf(resource string) string { return strings.TrimPrefix(resource, Resource("")) }

// pendingCounts is how many users asked for the lock of which process; empty without the database.
func (p *Processes) pendingCounts(ctx context.Context) map[string]int {
	ctx, cancel := context.WithTimeout(ctx, extrasTimeout)
	defer cancel()
	counts, _ := p.store.PendingCounts(ctx)
	return counts
}

func (p *Processes) selectLocks(ctx context.Context, user models.UserRef, q LockQuery, all []lock.Listed) ([]ListedLock, error) {
	found := make([]ListedLock, 0, len(all))
	for _, item := range all {
		mine := user.ID != "" && item.Holder.UserID == user.ID
		if (mine || !q.Mine) && (item.Waiting > 0 || !q.Waiting) {
			found = append(found, ListedLock{Listed: item, Mine: mine})
		}
	}
	if q.Text == "" {
		return found, nil
	}
	if err := p.addTitles(ctx, found); err != nil {
		return nil, err
	}
	text := strings.ToLower(q.Text)
	return slices.DeleteFunc(found, func(item ListedLock) bool {
		return !slices.ContainsFunc([]string{item.Title, item.Holder.Email, item.Holder.Reason, item.Resource}, func(field string) bool {
			return strings.Contains(strings.ToLower(field), text)
		})
	}), nil
}

func (p *Processes) addTitles(ctx context.Context, locks []ListedLock) error {
	ids := make([]string, 0, len(locks))
	for _, item := range locks {
		ids = append(ids, processOf(item.Resource))
	}
	titles, err := p.store.Titles(ctx, ids)
	if err != nil {
		return err
	}
	for i := range locks {
		locks[i].Title = titles[processOf(locks[i].Resource)]
	}
	return nil
}

// lockPlace is where a lock stands in a list. As JSON it is the cursor.
type lockPlace struct {
	Sort     string   `json:"o"`
	Keys     [3]int64 `json:"k"`
	Resource string   `json:"r"` // where the keys are the same
}

func placeOf(sort string, item ListedLock) lockPlace {
	at := lockPlace{Sort: sort, Resource: item.Resource}
	since := item.Holder.Since.UnixMilli()
	switch sort {
	case "since":
		at.Keys[0] = since
	case "-since":
		at.Keys[0] = -since
	case "expiresAt":
		at.Keys[0] = item.End
	case "waiting":
		at.Keys = [3]int64{-int64(item.Waiting), -since}
	case "resource":
	default:
		at.Keys = [3]int64{rank(item.Mine), rank(item.Waiting > 0), -since}
	}
	return at
}

// rank puts what is first before the rest.
func rank(first bool) int64 {
	if first {
		return 0
	}
	return 1
}

func (a lockPlace) compare(b lockPlace) int {
	return cmp.Or(slices.Compare(a.Keys[:], b.Keys[:]), cmp.Compare(a.Resource, b.Resource))
}

// pageOfLocks sorts the locks and returns the page after a place; nil is the first page.
func pageOfLocks(locks []ListedLock, q LockQuery, after *lockPlace) (items []ListedLock, next *string) {
	type placed struct {
		at   lockPlace
		item ListedLock
	}
	sorted := make([]placed, 0, len(locks))
	for _, item := range locks {
		if at := placeOf(q.Sort, item); after == nil || at.compare(*after) > 0 {
			sorted = append(sorted, placed{at, item})
		}
	}
	slices.SortFunc(sorted, func(a, b placed) int { return a.at.compare(b.at) })
	items = []ListedLock{}
	for i, row := range sorted {
		if i == q.Limit {
			next = sorted[i-1].at.cursor()
			break
		}
		items = append(items, row.item)
	}
	return items, next
}

func (a lockPlace) cursor() *string {
	doc, _ := json.Marshal(a) // strings and numbers: cannot fail
	text := base64.RawURLEncoding.EncodeToString(doc)
	return &text
}

func readLockCursor(sort, text string) (*lockPlace, error) {
	if text == "" {
		return nil, nil
	}
	var at lockPlace
	doc, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || json.Unmarshal(doc, &at) != nil || at.Sort != sort || at.Resource == "" {
		return nil, fmt.Errorf("locks: %w", models.ErrBadCursor)
	}
	return &at, nil
}
