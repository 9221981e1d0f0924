package session_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// TestSessionResurrectionProof ends sessions in every way while something keeps an
// old copy of them: a read that is paused for longer than copies live, a Redis that
// gets its old bytes back or is emptied, another Redis that gets nothing, a
// sign-in that races a change of password. None comes back.
func TestSessionResurrectionProof(t *testing.T) {
	rounds, worlds := 60, 2
	if servicestest.LongProof() {
		rounds, worlds = inFull(100_000), 8 // as many at once as go test -parallel lets
	}
	left := newCountdown(t, rounds)
	for range worlds {
		t.Run("world", func(t *testing.T) {
			t.Parallel()
			proveResurrections(t, left)
		})
	}
}

func proveResurrections(t *testing.T, left *countdown) {
	shared, other := servicestest.StartRedis(t), servicestest.StartRedis(t)
	path := filepath.Join(t.TempDir(), "sessions.db")
	opt := session.Options{MaxPerUser: 1_000_000}
	var all []instance
	for _, server := range []*servicestest.RedisServer{shared, shared, other} { // two share a Redis, one has its own
		all = append(all, startInstance(t, path, redistest.New(t, server.Addr), opt))
	}
	servers := []*servicestest.RedisServer{shared, other}
	var ended []string
	var email string
	for round := 0; left.next(); round++ {
		if round%50 == 0 { // rows of ended sessions stay for a while, and a sign-in looks at all of its user
			email = fmt.Sprintf("ann%d@example.com", round)
			signUp(t, all[0].db, email)
		}
		ended = append(ended, resurrect(t, all, servers, email)...)
		ended = ended[max(0, len(ended)-100):]
	}
	for _, i := range all { // later, when no instance has just synced
		for _, token := range ended {
			refused(t, i, token)
		}
	}
}

// resurrect begins a session, ends it, brings its copies back, and returns the
// tokens that no instance may accept any more.
func resurrect(t *testing.T, all []instance, servers []*servicestest.RedisServer, email string) (ended []string) {
	t.Helper()
	ann, err := all[0].db.Credentials(t.Context(), email)
	if err != nil {
		t.Fatal(err)
	}
	order := rand.Perm(len(all))
	at, late := all[order[0]], all[order[1]]
	token, s := signIn(t, at, ann)
	for _, i := range all {
		mustGet(t, i, token)
	}
	key := "test:session:" + s.Hash
	var old []string
	for _, server := range servers {
		old = append(old, server.Do("GET", key))
	}
	if rand.IntN(4) == 0 {
		servers[0].Do("FLUSHALL")
	}

	// A read of the row that is overtaken by the end.
	read, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	pause := func() { once.Do(func() { close(read); <-goOn }) }
	late.db.afterRead.Store(&pause)
	filled := make(chan struct{})
	go func() {
		defer close(filled)
		_, _ = late.Refresh(t.Context(), s) // reads the row, whatever copies there are
	}()
	<-read
	ended = append(ended, token)
	var racing sync.WaitGroup
	switch rand.IntN(5) {
	case 0:
		err = at.End(t.Context(), models.Ending{Hash: s.Hash})
	case 1:
		err = at.End(t.Context(), models.Ending{UserID: ann.ID, ID: s.ID})
	case 2:
		err = at.DeleteUser(t.Context(), ann.ID)
	case 3:
		_, kept, setErr := at.Create(t.Context(), of(ann))
		err = errors.Join(setErr, at.End(t.Context(), models.Ending{UserID: kept.User.ID, Keep: kept.Hash}))
	case 4:
		signedIn := make(chan string, 1)
		racing.Go(func() {
			raced, _, err := all[order[2]].Create(t.Context(), of(ann))
			if err != nil && !errors.Is(err, models.ErrStale) {
				t.Error(err)
			}
			signedIn <- raced
		})
		_, _, err = at.ChangePassword(t.Context(), s, ann.Epoch, "new hash")
		racing.Wait()
		if raced := <-signedIn; raced != "" {
			ended = append(ended, raced)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range ended {
		refused(t, at, token)
	}
	for _, i := range all {
		i.Sync(t.Context())
	}
	close(goOn)
	<-filled
	for n, server := range servers {
		if old[n] != "" {
			server.Do("SET", key, old[n])
		}
	}
	for _, i := range all {
		for _, token := range ended {
			refused(t, i, token)
		}
	}
	return ended
}

// Redis comes back from a dump older than the end, and an instance starts then.
func TestSessionResurrectionFromADump(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t, "--dir", t.TempDir(), "--dbfilename", "old.rdb")
	all := startInstances(t, 2, server, session.Options{})
	ann := signUp(t, all[0].db, "ann@example.com")
	token, s := signIn(t, all[0], ann)
	valid, _ := signIn(t, all[0], ann)
	for _, i := range all {
		warmForLong(t, i, token)
		warmForLong(t, i, valid)
	}
	server.Do("SAVE")
	if err := all[0].End(t.Context(), models.Ending{Hash: s.Hash}); err != nil {
		t.Fatal(err)
	}
	server.Restart()
	if server.Do("EXISTS", "test:session:"+s.Hash) != "1" {
		t.Fatal("the old copy is not back")
	}
	refused(t, all[0], token)
	servicestest.Within(t, revokeBound, func() bool {
		_, err := all[1].Get(t.Context(), token)
		return errors.Is(err, models.ErrNotFound)
	}, "the old copy lives")
	for _, i := range all {
		servicestest.Eventually(t, i.redis.Available, "Redis is not used again")
		refused(t, i, token)
		mustGet(t, i, valid)
	}
}

// The database comes back from a backup: a session that began after it is not brought back by its
// copies, whether or not the log has grown since as far as it was. One from before the backup goes
// on.
func TestDatabaseRestored(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	for name, grown := range map[string]int{"the log is shorter": 0, "the log is as long": 1, "the log is longer": 5} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := startInstance(t, filepath.Join(t.TempDir(), "sessions.db"), redistest.Patient(t, server.Addr), session.Options{})
			ann := signUp(t, i.db, "ann@example.com")
			before, _ := signIn(t, i, ann)
			backup := filepath.Join(t.TempDir(), "backup.db")
			i.db.exec(t, "VACUUM INTO '"+backup+"'")
			if err := i.db.Store.NoteChange(t.Context(), "another session"); err != nil {
				t.Fatal(err)
			}
			i.Sync(t.Context())
			after, _ := signIn(t, i, ann)
			warmForLong(t, i, after)
			i.db.exec(t, "ATTACH '"+backup+"' AS backup; BEGIN IMMEDIATE; DELETE FROM sessions; INSERT INTO sessions SELECT * FROM backup.sessions;"+
				"DELETE FROM revocations; INSERT INTO revocations SELECT * FROM backup.revocations;"+
				"DELETE FROM revocation_head; INSERT INTO revocation_head SELECT * FROM backup.revocation_head; COMMIT; DETACH backup")
			for range grown {
				if err := i.db.Store.NoteChange(t.Context(), "another session"); err != nil {
					t.Fatal(err)
				}
			}
			servicestest.Within(t, trust, func() bool {
				_, err := i.Get(t.Context(), after)
				return errors.Is(err, models.ErrNotFound)
			}, "a copy of a session without a row lives")
			for range 10 {
				refused(t, i, after)
				mustGet(t, i, before)
			}
		})
	}
}

// TestSessionFrozenRedisProof: a steady load goes on while Redis is frozen;
// no session ends, no request gets 503, and after the first
// calls it is as quick as before.
func TestSessionFrozenRedisProof(t *testing.T) {
	frozenFor := 3 * time.Second
	if servicestest.LongProof() {
		frozenFor = 10 * time.Second
	}
	server := servicestest.StartRedis(t)
	i := startInstances(t, 1, server, session.Options{MaxPerUser: 100})[0]
	ann := signUp(t, i.db, "ann@example.com")
	var tokens []string
	for range 20 {
		token, _ := signIn(t, i, ann)
		tokens = append(tokens, token)
	}
	for _, token := range tokens {
		warmForLong(t, i, token)
	}
	load := func(d time.Duration) (took []time.Duration) {
		t.Helper()
		var mu sync.Mutex
		var workers sync.WaitGroup
		until := time.Now().Add(d)
		for range 8 {
			workers.Go(func() {
				var mine []time.Duration
				ticker := time.NewTicker(time.Millisecond)
				defer ticker.Stop()
				for time.Now().Before(until) {
					<-ticker.C
					began := time.Now()
					s, err := i.Get(redis.WithBudget(t.Context()), tokens[rand.IntN(len(tokens))])
					if err != nil {
						t.Errorf("refused or unavailable: %v", err)
						return
					}
					i.Touch(*s)
					mine = append(mine, time.Since(began))
				}
				mu.Lock()
				defer mu.Unlock()
				took = append(took, mine...)
			})
		}
		workers.Wait()
		slices.Sort(took)
		return took
	}
	p99 := func(took []time.Duration) time.Duration { return took[len(took)*99/100] }
	healthy := load(2 * time.Second)
	server.Freeze()
	first := load(time.Second)
	then := load(frozenFor - time.Second)
	server.Thaw()
	t.Logf("p99 healthy %v, first second %v (worst %v), then %v, of %d reads", p99(healthy), p99(first), first[len(first)-1], p99(then), len(healthy)+len(first)+len(then))
	if servicestest.LongProof() {
		if p99(first) > 100*time.Millisecond {
			t.Errorf("p99 of the first second is %v, more than the deadline", p99(first))
		}
		if p99(then) > p99(healthy)*3/2+50*time.Microsecond {
			t.Errorf("p99 %v with Redis frozen, %v before", p99(then), p99(healthy))
		}
	}
}
