package ratelimit

import "gatehouse/models"

// denial is a refusal by Redis of a cost, and so of any dearer one. Zero is none.
type denial struct {
	cost   int64
	until  int64 // believed so long: from when the question was sent for denialMemory, and for probeGrace while it is asked again
	lapses int64 // believed so long without that
	over   int64 // counted from before the question was sent: the hit may pass at Redis
	passes int64 // counted from the answer: the hit passes, as told to clients

	told     []models.Decision // what is answered, never changed
	toldCost int64
	toldAt   int64
}

// denials are the refusals remembered of a key: low is of the smallest cost, high
// of a dearer one, which has to wait longer and so is asked for by itself. Each is
// renewed by the hits it is told to, so that a key costs Redis at most two
// commands a second however dear its hits are, and one if all cost the same.
type denials struct{ low, high denial }

// of is the denial that a hit is told and when it passes, nil if none is known.
// It is to be believed, or else due to be asked for again.
func (d *denials) of(a *ask, now int64) (told *denial, passes int64, believed bool) {
	if d.high.cost != 0 && now >= d.high.over {
		d.high = denial{}
	}
	if d.low.cost != 0 && now >= d.low.over {
		d.low, d.high = d.high, denial{}
	}
	low, high := &d.low, &d.high
	switch {
	case low.cost == 0 || a.cost < low.cost:
		return nil, 0, false
	case a.cost == low.cost:
		return low, low.passes, now < low.until
	case a.cost <= high.cost:
		passes = max(low.passes, high.passes)
	default:
		passes = now + a.longest()
	}
	return high, passes, now < high.until && (a.cost >= high.cost || now < low.until)
}

// claim makes the others that the hit's denial is told to go on being refused
// while the hit is asked for.
func (d *denials) claim(a *ask, now int64) {
	told, passes, believed := d.of(a, now)
	switch {
	case told == nil || believed:
	case told == &d.low || now < d.high.until: // only the smallest has lapsed
		d.low.until = now + probeGrace
	default:
		over := d.low.over // then the smallest may pass, and of this one nothing is known yet
		if a.cost >= d.high.cost {
			over = max(over, d.high.over)
		}
		d.high = denial{cost: a.cost, until: now + probeGrace, over: over, passes: passes}
	}
}

// learn takes in a refusal, with so many units remaining.
func (d *denials) learn(no denial, remaining, now int64) {
	switch {
	case d.low.cost == 0 || no.cost <= d.low.cost || now >= d.low.over:
		if no.cost < d.low.cost && d.high.cost == 0 {
			d.high = d.low
		}
		d.low = no
	case no.cost < d.high.cost && now < d.high.until && now >= d.low.lapses: // asked in place of the smallest
		if d.low.cost > remaining { // which is refused, too, and passes no later
			no.cost, no.over, no.passes = d.low.cost, d.low.over, min(no.passes, d.low.passes)
		}
		d.low = no
	default:
		d.high = no
	}
}

// longest is how long a hit that could pass can have to wait.
func (a *ask) longest() int64 {
	if a.leased() {
		return a.rule.window + leaseLength(a.rule.window)
	}
	return a.rule.window
}

// known is what is remembered of the key of a hit that can be refused, nil if
// nothing is. t.mu is held.
func (t *limitTable) known(a *ask) *keyState {
	if a.cost == 0 || a.hit.Policy.Shadow {
		return nil
	}
	s := t.keys[a.name]
	if s == nil || s.policy != a.hit.Policy {
		return nil
	}
	return s
}

// deniedOrClaimed is a denial still believed, as the one decision that it makes, for a
// caller who asks Redis if there is none: that is so once the memory is due for renewal,
// and the others go on being refused while it asks. The decisions of a millisecond are
// the same.
func (t *limitTable) deniedOrClaimed(a *ask, now int64) []models.Decision {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.known(a)
	if s == nil {
		return nil
	}
	d, passes, believed := s.denials.of(a, now)
	if !believed {
		s.denials.claim(a, now)
		return nil
	}
	s.used = now
	if d.told == nil || d.toldCost != a.cost || now-d.toldAt >= toldMemory {
		d.told, d.toldCost, d.toldAt = []models.Decision{a.decision(s.refusal(passes, now))}, a.cost, now
	}
	return d.told
}

// deniedTogether is the verdicts about hits of which one is believed to be denied.
// Of the others, too, only what is believed is told: what has lapsed may have been
// reset since. If none is, the caller is about to ask Redis, as in deniedOrClaimed,
// and the answer is nil.
func (t *limitTable) deniedTogether(asks []ask) []verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, some := t.now(), false
	for i := range asks {
		if s := t.known(&asks[i]); s != nil {
			_, _, believed := s.denials.of(&asks[i], now)
			some = some || believed
		}
	}
	var verdicts []verdict
	for i := range asks {
		a := &asks[i]
		s := t.known(a)
		if !some {
			if s != nil {
				s.denials.claim(a, now)
			}
			continue
		}
		v := t.recalled(a, now)
		if s != nil {
			d, passes, believed := s.denials.of(a, now)
			if believed || d != nil && now < s.denials.low.until { // dearer than one that is refused
				s.used, v = now, s.refusal(passes, now)
			}
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

// refusal is a denial as it is told now.
func (s *keyState) refusal(passes, now int64) verdict {
	v := s.latest.after(now - s.latest.at)
	v.passes, v.retry = false, max(1, passes-now)
	return v
}

// away forgets the denials of keys that Redis could not be asked for: the policy
// says what happens now.
func (t *limitTable) away(asks []ask) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range asks {
		t.forgetDenials(&asks[i])
	}
}

// forgetDenials is away for one hit. t.mu is held.
func (t *limitTable) forgetDenials(a *ask) {
	if s := t.keys[a.name]; s != nil {
		s.denials = denials{}
	}
}
