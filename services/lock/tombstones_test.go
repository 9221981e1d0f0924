package lock

import (
	"strconv"
	"testing"
	"time"
)

func TestTombstones(t *testing.T) {
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
