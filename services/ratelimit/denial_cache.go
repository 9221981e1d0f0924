package ratelimit

import (
	"time"

	"gatehouse/models"
)

// In microseconds, as all times here.
const (
	// denialMemory is how long a denial is believed before Redis is asked again.
	denialMemory = int64(time.Second / time.Microsecond)
	// renewalGrace is how long a denial goes on being believed while one request asks again.
	renewalGrace = int64(100 * time.Millisecond / time.Microsecond)
)

// denial is a refusal by Redis of a cost, and so of any higher one. The zero value is none.
type denial struct {
	cost     int64
	believed int64 // until then
	mayPass  int64 // from then on, counted from before the call was sent
	passes   int64 // when it passes, for decisions: counted from the reply
}

// denialOf is the denial of a request that was sent and refused. localTable.observe adds it.
func denialOf(req *request, refused result, sent, now int64) denial {
	return denial{
		cost: req.cost, believed: sent + min(refused.retry, denialMemory), mayPass: sent + refused.retry, passes: now + refused.retry,
	}
}

// denials are the refusals cached for a key: low is of the smallest cost, high of a higher
// one, which has to wait longer. A request that is refused by one of them asks again when the
// denial is a second old. So a key costs Redis at most two commands a second, and one if all
// requests cost the same.
type denials struct {
	low, high denial
	renewing  int64 // until then one request asks again, and the others are refused
}

// of returns when the request may pass, according to the denial that applies to it, and whether
// that is still believed. If not, one request has to ask again. Not known means that none applies.
func (d *denials) of(req *request, now int64) (passes int64, known, believed bool) {
	if now >= d.high.mayPass {
		d.high = denial{}
	}
	if now >= d.low.mayPass {
		d.low, d.high = d.high, denial{}
	}
	switch {
	case d.low.cost == 0 || req.cost < d.low.cost:
		return 0, false, false
	case req.cost == d.low.cost:
		passes, believed = d.low.passes, now < d.low.believed
	case req.cost < d.high.cost:
		passes, believed = max(d.low.passes, d.high.passes), now < min(d.low.believed, d.high.believed)
	case req.cost == d.high.cost:
		passes, believed = max(d.low.passes, d.high.passes), now < d.high.believed
	default:
		passes, believed = now+req.longest(), now < d.high.believed
	}
	return passes, true, believed || now < d.renewing
}

// add caches a refusal, which said how many units remain.
func (d *denials) add(no denial, remaining, now int64) {
	d.renewing = 0
	switch {
	case d.low.cost == 0 || no.cost <= d.low.cost || now >= d.low.mayPass:
		if no.cost < d.low.cost && d.high.cost == 0 {
			d.high = d.low
		}
		d.low = no
	case no.cost >= d.high.cost || now >= d.high.believed:
		d.high = no
	case d.low.cost > remaining: // it asked in place of the smallest, which is refused, too
		d.low.believed = max(d.low.believed, no.believed)
	default:
		d.low = no
	}
}

// longest is how long a request that can pass at all may have to wait.
func (req *request) longest() int64 {
	if req.usesBlocks() {
		return req.rule.window + blockLength(req.rule.window)
	}
	if req.hit.Policy.Block == models.BlockAuto {
		return req.rule.window + autoLength(req.rule.window)
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

// denied returns the results of requests if a denial of one of them is still believed. Those
// without such a denial get their last known state. Otherwise it returns nil, and the caller asks
// Redis. While it does, at most for renewalGrace, other requests go on being refused.
func (t *localTable) denied(requests []request, buffer []result) []result {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, some := t.now(), false
	for i := range requests {
		req := &requests[i]
		v := t.lastKnownAt(req, now)
		if s := t.cached(req); s != nil {
			passes, known, believed := s.denials.of(req, now)
			if believed || known && now < s.denials.low.believed { // it costs more than one that is refused
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
