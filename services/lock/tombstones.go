package lock

import "time"

// tombstonesMost is how many tombstones are kept at least, whatever their age.
const tombstonesMost = 1 << 15

// tombstones remember the grants that are over for as long as an instance could ask about
// them. Of more than that they keep the last 32,768 to 65,536. Without Redis a grant whose
// tombstone is gone counts as one of another instance.
type tombstones struct {
	keep          time.Duration
	newer, before map[string]struct{}
	since         time.Time // of newer
}

func newTombstones(keep time.Duration) *tombstones {
	return &tombstones{keep: keep, newer: map[string]struct{}{}}
}

func (s *tombstones) add(now time.Time, grant string) {
	if len(s.newer) >= tombstonesMost || now.Sub(s.since) > s.keep {
		s.newer, s.before, s.since = make(map[string]struct{}, len(s.newer)), s.newer, now
	}
	s.newer[grant] = struct{}{}
}

func (s *tombstones) has(grant string) bool {
	_, newer := s.newer[grant]
	_, before := s.before[grant]
	return newer || before
}
