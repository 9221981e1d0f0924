package ratelimit

// denial is a refusal by Redis of a cost, and so of any higher one. The zero value is none.
type denial struct {
	cost   int64
	until  int64 // believed so long: denialMemory after the call was sent
	over   int64 // from then on it may pass: counted from before the call was sent
	passes int64 // when it passes, as clients are told: counted from the reply
}

// denials are the refusals cached for a key: low is of the smallest cost, high of a higher
// one, which has to wait longer. A request that is refused by one of them asks again when the
// denial is a second old. So a key costs Redis at most two commands a second, and one if all
// requests cost the same.
type denials struct {
	low, high denial
	renewing  int64 // until then one request asks again, and the others are refused
}

// of returns when a request passes by the denial that applies to it. The denial is to be
// believed, or else due to be asked about again. Not known means that none applies.
func (d *denials) of(req *request, now int64) (passes int64, known, believed bool) {
	if now >= d.high.over {
		d.high = denial{}
	}
	if now >= d.low.over {
		d.low, d.high = d.high, denial{}
	}
	switch {
	case d.low.cost == 0 || req.cost < d.low.cost:
		return 0, false, false
	case req.cost == d.low.cost:
		passes, believed = d.low.passes, now < d.low.until
	case req.cost < d.high.cost:
		passes, believed = max(d.low.passes, d.high.passes), now < min(d.low.until, d.high.until)
	case req.cost == d.high.cost:
		passes, believed = max(d.low.passes, d.high.passes), now < d.high.until
	default:
		passes, believed = now+req.longest(), now < d.high.until
	}
	return passes, true, believed || now < d.renewing
}

// add caches a refusal, which said how many units remain.
func (d *denials) add(no denial, remaining, now int64) {
	d.renewing = 0
	switch {
	case d.low.cost == 0 || no.cost <= d.low.cost || now >= d.low.over:
		if no.cost < d.low.cost && d.high.cost == 0 {
			d.high = d.low
		}
		d.low = no
	case no.cost >= d.high.cost || now >= d.high.until:
		d.high = no
	case d.low.cost > remaining: // it asked in place of the smallest, which is refused, too
		d.low.until = max(d.low.until, no.until)
	default:
		d.low = no
	}
}

// longest is how long a request that can pass at all may have to wait.
func (req *request) longest() int64 {
	if req.usesBlocks() {
		return req.rule.window + blockLength(req.rule.window)
	}
	return req.rule.window
}

// cached returns the state of a request's key if a denial can apply to the request, else nil.
// The caller holds t.mu.
func (t *localTable) cached(req *request) *localState {
	if req.cost == 0 || req.hit.Policy.Shadow {
		return nil
	}
	s := t.keys[req.name]
	if s == nil || s.policy != req.hit.Policy {
		return nil
	}
	return s
}

// denied returns the results of requests of which one is believed to be denied. The others,
// too, have only what is believed: other denials may have been reset since. If none is
// believed it returns nil, and the caller asks Redis. Until then, at most for renewalGrace,
// further requests go on being refused.
func (t *localTable) denied(requests []request, buffer []result) []result {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, some := t.now(), false
	for i := range requests {
		req := &requests[i]
		v := t.lastKnownAt(req, now)
		if s := t.cached(req); s != nil {
			passes, known, believed := s.denials.of(req, now)
			if believed || known && now < s.denials.low.until { // it costs more than one that is refused
				s.used, v = now, s.refusal(passes, now)
			}
			some = some || believed
		}
		buffer = append(buffer, v)
	}
	if some {
		return buffer
	}
	for i := range requests {
		if s := t.cached(&requests[i]); s != nil {
			if _, known, _ := s.denials.of(&requests[i], now); known {
				s.denials.renewing = now + renewalGrace
			}
		}
	}
	return nil
}

// refusal is the result of a denial, as of now.
func (s *localState) refusal(passes, now int64) result {
	v := s.latest.after(now - s.latest.at)
	v.passes, v.retry = false, max(1, passes-now)
	return v
}

// forgetDenials drops the denials of keys about which Redis could not be asked: their policy
// decides now.
func (t *localTable) forgetDenials(requests []request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range requests {
		t.dropDenials(&requests[i])
	}
}

// dropDenials is forgetDenials for one request. The caller holds t.mu.
func (t *localTable) dropDenials(req *request) {
	if s := t.keys[req.name]; s != nil {
		s.denials = denials{}
	}
}
