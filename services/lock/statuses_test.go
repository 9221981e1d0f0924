package lock

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

func TestStatuses(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	a := openApart(t, server)
	other := openAt(t, server.Addr)
	var resources []string
	for i := range 40 {
		resources = append(resources, fmt.Sprint("process:", i))
		switch i % 4 {
		case 1:
			extend(t, a.Locker, take(t, a.Locker, request(resources[i], alice)), time.Hour)
		case 2:
			take(t, other, request(resources[i], bob))
		}
	}
	resources = append(resources, resources[1], "a name:with spaces", "")
	queueFor(t.Context(), t, other, request(resources[1], bob))

	t.Run("answer as Status does", func(t *testing.T) {
		all, err := a.Statuses(t.Context(), resources)
		if err != nil || len(all) != len(resources) {
			t.Fatalf("%d of %d, %v", len(all), len(resources), err)
		}
		for i, got := range all {
			want := a.mustStatus(t, resources[i])
			if got.Resource != want.Resource || got.Held != want.Held || got.Holder != want.Holder || got.Grant != want.Grant ||
				got.Waiting != want.Waiting || !got.ActiveAt.Equal(want.ActiveAt) || (got.TTL-want.TTL).Abs() > time.Minute || got.Degraded {
				t.Errorf("%+v, and Status answers %+v", got, want)
			}
		}
	})

	t.Run("cost one command for each shard", func(t *testing.T) {
		const rounds = 50
		start, before := time.Now(), scriptCalls(t, server)
		for range rounds {
			if _, err := a.Statuses(t.Context(), resources); err != nil {
				t.Fatal(err)
			}
		}
		heartbeats := 150 * int(time.Since(start)/time.Second+1) // of two instances
		if used := scriptCalls(t, server) - before; used < rounds || used > rounds*shardCount+heartbeats {
			t.Errorf("%d scripts for %d looks at %d locks", used, rounds, len(resources))
		}
	})

	t.Run("without Redis they are what the instance knows", func(t *testing.T) {
		a.cut()
		all, err := a.Statuses(t.Context(), resources[:4])
		if err != nil || slices.ContainsFunc(all, func(s models.LockStatus) bool { return !s.Degraded }) || !all[1].Held || all[2].Held {
			t.Errorf("%+v, %v", all, err)
		}
	})
}

var scriptStats = regexp.MustCompile(`cmdstat_evalsha:calls=(\d+)`)

// scriptCalls is how many scripts the server has executed.
func scriptCalls(t *testing.T, server *servicestest.RedisServer) int {
	t.Helper()
	found := scriptStats.FindStringSubmatch(server.Do("INFO", "commandstats"))
	if found == nil {
		t.Fatal("no script was executed")
	}
	calls, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return calls
}
