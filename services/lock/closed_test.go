package lock

import (
	"errors"
	"testing"
	"time"

	"gatehouse/models"
)

// A Locker that is told to be closed grants nothing without Redis, as one that is told nothing.
func TestClosedByName(t *testing.T) {
	l := cutOff(t, Options{OnRedisDown: models.OnRedisDownClosed})
	if taken, err := l.TryAcquire(t.Context(), request("r", alice)); !errors.Is(err, models.ErrUnavailable) {
		t.Errorf("%+v, %v", taken, err)
	}
	if grants := l.table.living(time.Now(), anyLock); len(grants) != 0 {
		t.Errorf("it has granted %+v", grants)
	}
}
