package session_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/session"
	"gatehouse/services/store"
)

// ann signs in where the database has no users: in fake time.
var ann = models.Credentials{User: models.User{ID: "1", Email: "ann@example.com", Roles: []string{models.RoleEditor}}}

// inFakeTime runs test with n instances on a database in memory and without Redis, in time that
// passes by itself. TestDatabaseContract says that the store would do the same.
func inFakeTime(t *testing.T, n int, opt session.Options, test func(t *testing.T, all []instance)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		database := newMapDatabase()
		var all []instance
		for range n {
			all = append(all, withoutRedis(t, database, opt))
		}
		synctest.Wait()
		test(t, all)
		for _, i := range all {
			if err := errors.Join(i.Close(context.Background()), i.redis.Close(context.Background())); err != nil {
				t.Error(err)
			}
		}
	})
}

// inFakeTimeOnAStore is inFakeTime with one instance and a SQLite file that is kept clean.
func inFakeTimeOnAStore(t *testing.T, opt session.Options, test func(t *testing.T, w *world, i instance)) {
	t.Helper()
	path := newDatabase(t)
	synctest.Test(t, func(t *testing.T) {
		db, err := store.Open(t.Context(), store.Options{URL: path})
		if err != nil {
			t.Fatal(err)
		}
		w, i, stop := &world{store: db, path: path}, withoutRedis(t, db, opt), db.KeepClean()
		synctest.Wait()
		test(t, w, i)
		ctx := context.Background()
		if err := errors.Join(stop(ctx), i.Close(ctx), i.redis.Close(ctx), db.Close()); err != nil {
			t.Error(err)
		}
	})
}

func withoutRedis(t *testing.T, database session.Database, opt session.Options) instance {
	t.Helper()
	opt.Logger = redistest.Quiet()
	rdb, db := redis.New(redis.Options{Disabled: true, Logger: opt.Logger}), &testDB{Database: database}
	cache, err := session.NewCache(rdb, db, opt)
	if err != nil {
		t.Fatal(err)
	}
	return instance{cache, db, rdb}
}

// pass lets time pass and the instances do what they do then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
