package store_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"gatehouse/models"
)

func endedLock(grant, how string, by models.User) models.EndedLock {
	return models.EndedLock{
		Grant: grant, Resource: "process:1",
		End: models.LockEnd{How: how, By: models.UserRef{ID: by.ID, Email: by.Email}, Reason: "because", At: start},
	}
}

func TestLockEnds(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		ann := newUser(t, s, "ann@example.com")
		expired := models.EndedLock{Grant: "a", Resource: "process:1", End: models.LockEnd{How: models.LockExpired, At: start}}
		taken := endedLock("b", models.LockTakenOver, ann)
		wantEnd := func(grant string, want models.LockEnd) {
			t.Helper()
			if got := must(s.LockEnd(t.Context(), grant)); got != want {
				t.Errorf("%s: %+v, want %+v", grant, got, want)
			}
		}
		_, err := s.LockEnd(t.Context(), "a")
		wantError(t, err, models.ErrNotFound)
		check(t, s.AddLockEnds(t.Context()))
		check(t, s.AddLockEnds(t.Context(), taken, expired))
		wantEnd("a", expired.End)
		wantEnd("b", taken.End)
		// A lease that ended by itself may have come back, all else is final.
		check(t, w.other.AddLockEnds(t.Context(), endedLock("a", models.LockReleased, ann)))
		check(t, w.other.AddLockEnds(t.Context(), endedLock("b", models.LockReleased, ann)))
		wantEnd("a", endedLock("a", models.LockReleased, ann).End)
		wantEnd("b", taken.End)
		check(t, s.DeleteUser(t.Context(), ann.ID)) // is known all the same
		check(t, s.AddLockEnds(t.Context(), models.EndedLock{Grant: "c\x00\xff", End: models.LockEnd{Reason: "\x00", At: start.Add(models.KeepLockEnds)}}))

		must(s.CleanUp(t.Context(), start.Add(models.KeepLockEnds), 100))
		wantEnd("a", endedLock("a", models.LockReleased, ann).End)
		must(s.CleanUp(t.Context(), start.Add(models.KeepLockEnds+time.Second), 100))
		for _, grant := range []string{"a", "b"} {
			_, err = s.LockEnd(t.Context(), grant)
			wantError(t, err, models.ErrNotFound)
		}
		must(s.LockEnd(t.Context(), "c\x00\xff"))
	})
}

// How the grants of one lock ended is told the latest first, with who had them, as far as that is
// known.
func TestLockEndsOfAResource(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		ann := newUser(t, s, "ann@example.com")
		fence := int64(1) << 52
		ended := func(grant, resource, how string, after time.Duration) models.EndedLock {
			return models.EndedLock{
				Grant: grant, Resource: resource, Fence: &fence,
				Holder: models.Holder{UserID: ann.ID, Email: ann.Email, Since: start}, End: models.LockEnd{How: how, At: start.Add(after)},
			}
		}
		known := ended("known", "process:1", models.LockExpired, time.Second)
		check(t, s.AddLockEnds(t.Context(), known, ended("of another", "process:2", models.LockReleased, time.Second)))
		check(t, s.AddLockEnds(t.Context(), endedLock("later", models.LockForced, ann)))
		check(t, s.AddLockEnds(t.Context(), ended("old", "process:1", models.LockReleased, -time.Hour)))
		want := func(limit int, grants ...string) (all []models.EndedLock) {
			t.Helper()
			all = must(w.other.LockEnds(t.Context(), "process:1", start.Add(-time.Hour), limit))
			var got []string
			for _, e := range all {
				got = append(got, e.Grant)
			}
			if !slices.Equal(got, grants) {
				t.Fatalf("%v, want %v", got, grants)
			}
			return all
		}
		all := want(9, "known", "later") // and not what ended an hour ago
		if got := all[0]; *got.Fence != fence || got.Holder != known.Holder || got.End != known.End || got.Resource != "process:1" {
			t.Errorf("%+v, want %+v", got, known)
		}
		if got := all[1]; got.Fence != nil || got.Holder != (models.Holder{}) || got.End.By.Email != ann.Email {
			t.Errorf("who had it is not known: %+v", got)
		}
		want(1, "known")

		// An end that is corrected does not forget who had the lock.
		check(t, s.AddLockEnds(t.Context(), models.EndedLock{Grant: "known", Resource: "process:1", End: models.LockEnd{How: models.LockReleased, At: start.Add(time.Minute)}}))
		if got := want(9, "known", "later")[0]; got.End.How != models.LockReleased || got.Holder != known.Holder || got.Fence == nil {
			t.Errorf("%+v", got)
		}
	})
}

// A grant that a user ended writes nothing more, whatever the version says. One whose lease ended
// by itself may: its holder's instance may have brought it back.
func TestDatabaseRuleKnowsEndedLocks(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		ann := newUser(t, s, "ann@example.com")
		for _, how := range []string{models.LockReleased, models.LockForced, models.LockTakenOver, models.LockGiven, models.LockUserDisabled, models.LockExpired} {
			p := must(s.CreateProcess(t.Context(), ann.ID, fields(how)))
			guard := models.WriteGuard{Grant: "grant-" + how, GrantedVersion: 1}
			p = must(s.UpdateProcess(t.Context(), p.ID, ann.ID, fields(how), guard))
			check(t, w.other.AddLockEnds(t.Context(), endedLock(guard.Grant, how, ann)))
			wrong := int64(9)
			for name, write := range map[string]func(models.WriteGuard) error{
				"update": func(g models.WriteGuard) error {
					return errorOf(s.UpdateProcess(t.Context(), p.ID, ann.ID, fields("late"), g))
				},
				"delete": func(g models.WriteGuard) error { return s.DeleteProcess(t.Context(), p.ID, ann.ID, g) },
			} {
				if how == models.LockExpired && name == "delete" {
					continue // it is done
				}
				var notHeld *models.NotHeldError
				err := write(guard)
				switch refused := errors.As(err, &notHeld); {
				case refused == (how == models.LockExpired):
					t.Errorf("%s under a lock that was %s: %v", name, how, err)
				case refused && (notHeld.EndedBy.How != how || notHeld.EndedBy.By.ID != ann.ID || notHeld.Status.Resource != "process:1"):
					t.Errorf("%s under a lock that was %s: %+v", name, how, notHeld)
				}
				guard.IfMatch = &wrong // the lock comes first
				if err := write(guard); (how != models.LockExpired) != errors.Is(err, models.ErrNotHeld) {
					t.Errorf("%s under a lock that was %s, with If-Match: %v", name, how, err)
				}
				guard.IfMatch = nil
			}
			if got := must(s.Process(t.Context(), p.ID)); (got.Title == "late") != (how == models.LockExpired) {
				t.Errorf("after a write under a lock that was %s: %+v", how, got)
			}
		}
	})
}

// A write under the grant, or a draft, is a sign of life.
func TestLastActivity(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		ann, bob := newUser(t, s, "ann@example.com"), newUser(t, s, "bob@example.com")
		p := must(s.CreateProcess(t.Context(), ann.ID, fields("one")))
		want := func(grant string, at time.Time) {
			t.Helper()
			got, asked, err := s.LastActivity(t.Context(), p.ID, ann.ID, grant)
			if err != nil || !got.Equal(at) || asked != 0 {
				t.Errorf("%s: %v, want %v; %d asked, %v", grant, got, at, asked, err)
			}
		}
		want("mine", time.Time{})
		p = must(s.UpdateProcess(t.Context(), p.ID, ann.ID, fields("two"), models.WriteGuard{Grant: "mine", GrantedVersion: 1}))
		want("mine", p.UpdatedAt)
		want("another", time.Time{})
		must(s.SaveDraft(t.Context(), p.ID, bob.ID, models.Draft{Title: "t", Status: "draft", BaseVersion: 1}, time.Time{}))
		want("mine", p.UpdatedAt)
		draft := must(s.SaveDraft(t.Context(), p.ID, ann.ID, models.Draft{Title: "t", Status: "draft", BaseVersion: 1}, time.Time{}))
		want("mine", draft.SavedAt)
		want("another", draft.SavedAt)
		p = must(s.UpdateProcess(t.Context(), p.ID, ann.ID, fields("three"), models.WriteGuard{Grant: "mine", GrantedVersion: 2}))
		want("mine", p.UpdatedAt)
		_, _, err := s.LastActivity(t.Context(), "x", ann.ID, "mine")
		wantError(t, err, models.ErrNotFound)
	})
}

// Requests for locks are kept for a day after they are answered, and as long as they are not.
func TestLockRequestsAreCleanedUp(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		ann, bob := newUser(t, s, "ann@example.com"), newUser(t, s, "bob@example.com")
		p := must(s.CreateProcess(t.Context(), ann.ID, fields("one")))
		for _, user := range []models.User{ann, bob} {
			asked := models.LockRequest{ID: user.Email, ProcessID: p.ID, By: models.UserRef{ID: user.ID}, At: start, AnswerBy: start}
			for _, want := range []bool{true, false} {
				got, created, err := s.AskForLock(t.Context(), asked)
				if err != nil || created != want || got.ID != user.Email || got.By.Email != user.Email || !got.At.Equal(start) {
					t.Errorf("%+v, %t, %v", got, created, err)
				}
			}
		}
		no := models.LockRequest{ID: ann.Email, State: models.RequestNo, AnsweredAt: start, AnswerBy: start}
		for _, want := range []bool{true, false} {
			if now, changed, err := s.AnswerLockRequest(t.Context(), no); err != nil || changed != want || now.State != models.RequestNo {
				t.Errorf("%+v, %t, %v", now, changed, err)
			}
		}
		must(s.CleanUp(t.Context(), start.Add(models.KeepLockEnds), 100))
		must(s.LockRequest(t.Context(), ann.Email))
		must(s.CleanUp(t.Context(), start.Add(models.KeepLockEnds+time.Second), 100))
		wantError(t, errorOf(s.LockRequest(t.Context(), ann.Email)), models.ErrNotFound)
		must(s.LockRequest(t.Context(), bob.Email))
		wantError(t, errorOf(s.LockRequest(t.Context(), "none")), models.ErrNotFound)
		for _, id := range badIDs {
			_, _, err := s.AskForLock(t.Context(), models.LockRequest{ID: "x", ProcessID: id, By: models.UserRef{ID: ann.ID}})
			wantError(t, err, models.ErrNotFound)
		}
	})
}
