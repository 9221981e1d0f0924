package store_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

// BenchmarkWrites has so many writers edit processes of their own in a SQLite file, at the same
// time. It reports writes per second, and processor time per write.
func BenchmarkWrites(b *testing.B) {
	for _, writers := range []int{1, 16, 64} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			s := must(store.Open(b.Context(), store.Options{URL: filepath.Join(b.TempDir(), "test.db"), Timeout: servicestest.Patience}))
			defer s.Close()
			ids := make([]string, writers)
			for i := range ids {
				ids[i] = must(s.CreateProcess(b.Context(), "", fields("x"))).ID
			}
			var left atomic.Int64
			left.Store(int64(b.N))
			var all sync.WaitGroup
			began := processorTime()
			b.ResetTimer()
			for _, id := range ids {
				all.Go(func() {
					for version := int64(1); left.Add(-1) >= 0; version++ {
						if _, err := s.UpdateProcess(b.Context(), id, "", fields("y"), models.WriteGuard{GrantedVersion: version}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
			b.ReportMetric(float64((processorTime()-began).Microseconds())/float64(b.N), "cpu-us/write")
		})
	}
}

// processorTime is what this process has used of the processors.
func processorTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
