package session

import "gatehouse/models"

// logPosition is a place in the log: the number and the mark of its last entry.
type logPosition struct{ seq, mark int64 }

// How what was read now stands to what was read before.
type succession int

const (
	sameLog     succession = iota
	cleanedLog             // the entry we knew last is gone: nobody can tell what came before
	restoredLog            // another history
)

func follows(tail models.RevocationTail, known logPosition) succession {
	if known.seq == 0 || (logPosition{tail.Head, tail.Mark}) == known {
		return sameLog
	}
	if tail.Head <= known.seq {
		return restoredLog
	}
	for _, r := range tail.Entries {
		if r.Seq == known.seq && r.Mark == known.mark {
			return sameLog
		} else if r.Seq == known.seq {
			return restoredLog
		}
	}
	return cleanedLog
}

// unknownMark is no entry's: marks are not negative.
const unknownMark = -1

// gapless returns the entries that lead to the head without a gap, and the
// position before them.
func gapless(tail models.RevocationTail) (entries []models.Revocation, from logPosition) {
	from = logPosition{tail.Head, tail.Mark}
	if n := len(tail.Entries); n > 0 {
		from.seq = max(from.seq, tail.Entries[n-1].Seq)
	}
	first := len(tail.Entries)
	for first > 0 && tail.Entries[first-1].Seq == from.seq {
		first--
		from = logPosition{from.seq - 1, unknownMark}
	}
	if from.seq == 0 {
		from.mark = 0 // the beginning of a log
	}
	return tail.Entries[first:], from
}
