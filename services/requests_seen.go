package services

import (
	"fmt"
	"sync"

	"gatehouse/models"
)

// requestsSeen finds out from the database what has become of requests for locks at any instance.
type requestsSeen struct {
	mu        sync.Mutex
	byProcess map[string]string // what there was of each process at the last look
}

// has reports whether there were requests for the lock of a process at the last look.
func (s *requestsSeen) has(process string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byProcess[process] != ""
}

// changed returns the processes whose requests are not those of the call before. requests are all
// that there are.
func (s *requestsSeen) changed(requests []models.LockRequest) (processes []string) {
	now := map[string]string{}
	for _, r := range requests {
		now[r.ProcessID] += fmt.Sprintln(r.ID, r.State, r.AnswerBy.UnixMicro())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, seen := range now {
		if s.byProcess[id] != seen {
			processes = append(processes, id)
		}
	}
	for id := range s.byProcess {
		if now[id] == "" {
			processes = append(processes, id)
		}
	}
	s.byProcess = now
	return processes
}
