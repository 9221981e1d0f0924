package handlers

import "sync"

// streamsPerUser is the default of Options.StreamsPerUser.
const streamsPerUser = 20

// places limits how many requests of one kind may stay open at the same time. Such a request
// costs its client only a connection, and the server has a limited number of them.
type places struct {
	total, each int // for all users together, for each user; 0 is no limit

	mu     sync.Mutex
	taken  int
	byUser map[string]int // no zeros
}

func newPlaces(total, each int) *places {
	return &places{total: total, each: each, byUser: map[string]int{}}
}

// take takes a place for a user and returns a function to give it back. If there is none it
// returns the limit that is reached.
func (p *places) take(user string) (giveBack func(), reached int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.each > 0 && p.byUser[user] >= p.each:
		return nil, p.each
	case p.total > 0 && p.taken >= p.total:
		return nil, p.total
	}
	p.taken++
	p.byUser[user]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.taken--
		if p.byUser[user]--; p.byUser[user] == 0 {
			delete(p.byUser, user)
		}
	}, 0
}
