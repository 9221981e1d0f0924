package ratelimit

// pacePeriod is how long a key's hits are counted for its pace, in microseconds.
const pacePeriod = int64(200_000)

// pace is how many units this instance was asked for lately, of one key. The zero value is none.
type pace struct {
	began         int64 // the current period
	units, before int64 // asked for in it, and in the one before
}

func (p *pace) add(now, units int64) {
	switch elapsed := now - p.began; {
	case elapsed >= 2*pacePeriod:
		*p = pace{began: now}
	case elapsed >= pacePeriod:
		*p = pace{began: p.began + pacePeriod, before: p.units}
	}
	p.units += units
}

// within is how many units come in a span of time at that pace, right after an add.
func (p *pace) within(now, span int64) int64 {
	left := max(0, pacePeriod-(now-p.began)) // of the period before
	return (p.units + p.before*left/pacePeriod) * span / pacePeriod
}
