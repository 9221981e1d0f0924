package ratelimit

import (
	"testing"
	"time"

	"gatehouse/models"
)

func TestOutbox(t *testing.T) {
	t.Parallel()
	// Hits of a policy with blocks share an entry; a refund takes its own units out of it.
	t.Run("a refund takes back the units of its hit", func(t *testing.T) {
		b := newOutbox(0, func() int64 { return 2000 })
		policy := models.Policy{Name: "p", Limit: 1000, Window: time.Hour, Block: 5}
		hits := []request{requestOf(policy, "k", 1), requestOf(policy, "k", 2), requestOf(policy, "k", 3)}
		key := taggedKey{"tag", hits[0].name}
		for i := range hits {
			b.addLocal(key, &hits[i], int64(i+1), int64(1000+i))
		}
		for _, row := range []struct {
			hit     int
			used    int64
			entries int
		}{{0, 5, 1}, {2, 2, 1}, {1, 0, 0}} {
			b.remove(key, &hits[row.hit], int64(row.hit+1), int64(1000+row.hit))
			if s := b.keys[key]; s.log.used != row.used || len(s.log.entries) != row.entries || b.entries != row.entries {
				t.Errorf("after the refund of hit %d: %+v, %d entries, want %d used", row.hit, s.log, b.entries, row.used)
			}
		}
	})

	// What was admitted stays when only the limit of a policy changes.
	t.Run("what was admitted stays when only the limit changes", func(t *testing.T) {
		log := models.Policy{Name: "p", Limit: 10, Window: time.Minute}
		changed := func(change func(*models.Policy)) models.Policy {
			p := log
			change(&p)
			return p
		}
		gcra := models.Policy{Name: "p", Limit: 100, Window: time.Minute, Algorithm: models.AlgorithmGCRA}
		longer := gcra
		longer.Window = time.Hour
		for _, row := range []struct {
			name         string
			before, now  models.Policy
			used, filled int64 // units of the log, of the bucket
		}{
			{"as it was", log, log, 4, 0},
			{"another limit", log, changed(func(p *models.Policy) { p.Limit = 20 }), 4, 0},
			{"another rule for outages", log, changed(func(p *models.Policy) { p.OnRedisDown = models.OnRedisDownLocal }), 4, 0},
			{"another window, counted in the same place", log, changed(func(p *models.Policy) { p.Window = time.Hour }), 4, 0},
			{"leased", log, changed(func(p *models.Policy) { p.Block = 2 }), 1, 0},
			{"a bucket", gcra, gcra, 0, 4},
			{"a bucket of another window", gcra, longer, 0, 1},
			{"a log in place of a bucket", gcra, log, 1, 0},
		} {
			b := newOutbox(0, func() int64 { return 2000 })
			before, now := requestOf(row.before, "k", 3), requestOf(row.now, "k", 1)
			key := taggedKey{"tag", now.name}
			b.addLocal(key, &before, 1, 2000)
			b.addLocal(key, &now, 2, 2000)
			s := b.keys[key]
			if s.log.used != row.used || s.bucket.level != row.filled*s.rule.window || s.policy != row.now || b.entries != len(s.log.entries) {
				t.Errorf("%s: %+v, %d entries, want %d used and %d filled", row.name, s, b.entries, row.used, row.filled)
			}
		}
	})

	t.Run("it is bounded", func(t *testing.T) {
		policies := map[string]models.Policy{
			"log":    {Name: "p", Limit: 1000, Window: time.Hour},
			"gcra":   {Name: "p", Limit: 10_000, Window: time.Hour},
			"leased": {Name: "p", Limit: 10_000, Window: time.Hour, Block: 5},
		}
		for name, policy := range policies {
			b := newOutbox(0, func() int64 { return 1 })
			for i := range int64(500) {
				req := requestOf(policy, string(rune('a'+i%200))+"k", 1)
				key := taggedKey{"tag", req.name}
				for n := range int64(30) {
					e := make([]expectation, 1)
					switch {
					case n%2 == 0:
						b.addLocal(key, &req, 100*i+n, i)
						b.keys[key].behind = false
					case b.beginCall("tag", []request{req}, e) != nil:
						t.Fatal("behind")
					case req.usesBlocks():
						b.recordBlocks(key, &e[0], 100*i+n, blockReply{units: 1, at: i}, blockTerms{window: 1 << 40}, nil)
					default:
						b.recordDecision(key, &req, &e[0], 100*i+n, true, result{passes: true, at: i + 1}, req.rule.burst*(i+1), nil, autoBlock{})
						b.keys[key].behind = false
					}
				}
				entries := 0
				for _, s := range b.keys {
					entries += s.size()
				}
				if len(b.keys) > minKeys || b.entries != entries || entries > entriesPerKey*minKeys+30 {
					t.Fatalf("%s: %d keys, %d entries counted as %d", name, len(b.keys), entries, b.entries)
				}
			}
		}
	})
}
