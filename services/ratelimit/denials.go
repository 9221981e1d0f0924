package ratelimit

// denial is a refusal by Redis of a cost, and so of any dearer one. Zero is none.
type denial struct {
	cost   int64
	until  int64 // believed so long: denialMemory from when the question was sent
	over   int64 // counted from before the question was sent: the hit may pass at Redis
	passes int64 // counted from the answer: the hit passes, as told to clients
}

// denials are the refusals remembered of a key: low is of the smallest cost, high
// of a dearer one, which has to wait longer. Each is renewed by a hit that it is told
// to, so that a key costs Redis at most two commands a second however dear its hits
// are, and one if all cost the same.
type denials struct {
	low, high denial
	asking    int64 // until then one call asks again, and the others go on being refused
}

// of says when a hit passes by the denial it is told. It is to be believed, or else due
// to be asked for again; unknown hits have none.
func (d *denials) of(a *ask, now int64) (passes int64, known, believed bool) {
	if now >= d.high.over {
		d.high = denial{}
	}
	if now >= d.low.over {
		d.low, d.high = d.high, denial{}
	}
	switch {
	case d.low.cost == 0 || a.cost < d.low.cost:
		return 0, false, false
	case a.cost == d.low.cost:
		passes, believed = d.low.passes, now < d.low.until
	case a.cost < d.high.cost:
		passes, believed = max(d.low.passes, d.high.passes), now < min(d.low.until, d.high.until)
	case a.cost == d.high.cost:
		passes, believed = max(d.low.passes, d.high.passes), now < d.high.until
	default:
		passes, believed = now+a.longest(), now < d.high.until
	}
	return passes, true, believed || now < d.asking
}

// learn takes in a refusal, with so many units remaining.
func (d *denials) learn(no denial, remaining, now int64) {
	d.asking = 0
	switch {
	case d.low.cost == 0 || no.cost <= d.low.cost || now >= d.low.over:
		if no.cost < d.low.cost && d.high.cost == 0 {
			d.high = d.low
		}
		d.low = no
	case no.cost >= d.high.cost || now >= d.high.until:
		d.high = no
	case d.low.cost > remaining: // asked in place of the smallest, which is refused, too
		d.low.until = max(d.low.until, no.until)
	default:
		d.low = no
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

// denied is the verdicts about hits of which one is believed to be denied. Of the
// others, too, only what is believed is told: what has lapsed may have been reset since.
// If none is, the caller is about to ask Redis, the others go on being refused
// meanwhile, and the answer is nil.
func (t *limitTable) denied(asks []ask, room []verdict) []verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, some := t.now(), false
	for i := range asks {
		a := &asks[i]
		v := t.recalled(a, now)
		if s := t.known(a); s != nil {
			passes, known, believed := s.denials.of(a, now)
			if believed || known && now < s.denials.low.until { // dearer than one that is refused
				s.used, v = now, s.refusal(passes, now)
			}
			some = some || believed
		}
		room = append(room, v)
	}
	if some {
		return room
	}
	for i := range asks {
		if s := t.known(&asks[i]); s != nil {
			if _, known, _ := s.denials.of(&asks[i], now); known {
				s.denials.asking = now + probeGrace
			}
		}
	}
	return nil
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
