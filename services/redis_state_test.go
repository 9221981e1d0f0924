package services

import (
	"log/slog"
	"testing"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/redis/rueidis"
)

// What every request asks says what the breaker does, also when the news of two
// changes come in the wrong order.
func TestRedisStateIsTheBreakers(t *testing.T) {
	t.Parallel()
	redis := NewRedis(RedisOptions{Client: rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}}, Logger: slog.New(slog.DiscardHandler)})
	if err := redis.Close(t.Context()); err != nil { // so that no probe changes anything
		t.Fatal(err)
	}
	for _, change := range []func(){redis.breaker.Open, redis.breaker.Close, redis.breaker.Open} {
		change()
		if redis.breakerClosed.Load() != redis.breaker.IsClosed() {
			t.Errorf("the breaker is %v, but nobody was told", redis.breaker.State())
		}
		for _, late := range []circuitbreaker.State{circuitbreaker.OpenState, circuitbreaker.ClosedState} {
			redis.stateChanged(circuitbreaker.StateChangedEvent{NewState: late})
			if redis.breakerClosed.Load() != redis.breaker.IsClosed() {
				t.Errorf("the breaker is %v, after late news that it is %v closed is %v", redis.breaker.State(), late, redis.breakerClosed.Load())
			}
		}
	}
}
