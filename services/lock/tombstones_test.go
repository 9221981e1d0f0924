package lock

import (
	"strconv"
	"testing"
	"time"
)

func TestTombstonesAreBounded(t *testing.T) {
	start := time.Now()
	ended := newTombstones(time.Hour)
	for i := range 4 * tombstonesMost {
		ended.add(start, strconv.Itoa(i))
	}
	if kept := len(ended.newer) + len(ended.before); kept > 2*tombstonesMost {
		t.Errorf("%d kept", kept)
	}
	for i := 3 * tombstonesMost; i < 4*tombstonesMost; i++ {
		if !ended.has(strconv.Itoa(i)) {
			t.Fatalf("%d is forgotten", i)
		}
	}
	ended.add(start.Add(61*time.Minute), "later")
	ended.add(start.Add(2*time.Hour), "latest")
	if !ended.has("later") || !ended.has("latest") {
		t.Error("not kept for an hour")
	}
	ended.add(start.Add(4*time.Hour), "last")
	ended.add(start.Add(6*time.Hour), "very last")
	if ended.has("later") {
		t.Error("kept for hours")
	}
}

// The end of a grant can be observed before the reply that brings the grant: a
// release beside an extend, a force on another instance.
func TestEndedGrantIsNotRecorded(t *testing.T) {
	for name, end := range map[string]func(*localTable, Lock){
		"released": func(table *localTable, lock Lock) { table.release(lock.Claim) },
		"ended elsewhere": func(table *localTable, lock Lock) {
			table.end(lock.Resource, lock.Grant)
		},
	} {
		table := newLocalTable(time.Hour, time.Now)
		lock := Lock{Claim: Claim{Resource: "process:1", Grant: "grant", Token: "token"}, trustedUntil: time.Now().Add(time.Minute)}
		end(table, lock)
		table.record(lock, "epoch", originLocal)
		if known := table.living(time.Now(), anyLock); len(known) != 0 {
			t.Errorf("%s: would be claimed again: %+v", name, known)
		}
		if table.check(time.Now(), lock.Claim) == nil {
			t.Errorf("%s: passes without Redis", name)
		}
	}
}
