package services

import "gatehouse/models"

// denial is a refusal by Redis of cost units or more. Zero is none.
type denial struct {
	cost   int64
	until  int64 // believed so long, at most denialMemory after the question was sent
	over   int64 // counted from before the question was sent: the hit may pass at Redis
	passes int64 // counted from the answer: the hit passes, as told to clients

	told   []models.Decision // what is answered for the cost itself, never changed
	toldAt int64
}

// denied reports a denial still believed. With claim, the caller is about to ask
// Redis: it is told false once the memory is due for renewal, and the others go
// on being refused while it asks. It allocates nothing.
func (t *limitTable) denied(a ask, claim bool) (verdict, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, now := t.keys[a.name], t.now()
	if s == nil || !s.denies(&a, now, claim) {
		return verdict{}, false
	}
	return s.refusal(now), true
}

// deniedAgain is denied with claim, as the one decision that it makes. The
// decisions of a millisecond are the same.
func (t *limitTable) deniedAgain(a *ask, now int64) []models.Decision {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.keys[a.name]
	if s == nil || !s.denies(a, now, true) {
		return nil
	}
	if d := &s.denial; d.told == nil || now-d.toldAt >= toldMemory {
		d.told, d.toldAt = []models.Decision{a.decision(s.refusal(now))}, now
	}
	return s.denial.told
}

func (s *keyState) denies(a *ask, now int64, claim bool) bool {
	if s.denial.cost == 0 || a.cost < s.denial.cost || s.policy != a.hit.Policy {
		return false
	}
	switch d := &s.denial; {
	case now >= d.over:
		*d = denial{}
		return false
	case now >= d.until:
		if claim {
			d.until = now + probeGrace
		}
		return false
	}
	s.used = now
	return true
}

// refusal is the denial as it is told now.
func (s *keyState) refusal(now int64) verdict {
	v := s.known.after(now - s.known.at)
	v.passes, v.retry = false, s.denial.passes-now
	return v
}
