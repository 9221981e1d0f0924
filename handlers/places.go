package handlers

import "sync"

// streamsPerUser is how many event streams a user may have open where no number is set.
const streamsPerUser = 20

// places is how many requests of one kind may stay open at the same time: a connection is
// all that such a request costs its client, and the server has only so many. 0 is any number.
type places struct {
	total, each int // of everybody, of each user

	mu     sync.Mutex
	taken  int
	byUser map[string]int // no zeros
}

func newPlaces(total, each int) *places {
	return &places{total: total, each: each, byUser: map[string]int{}}
}

// take takes a place for a user. It returns how to give it back, or, if there is none,
// which of the two numbers is reached.
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
